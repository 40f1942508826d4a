//! Who may do what: one pure function.

use oci_registry::RepositoryName;
use oci_registry::server::Action;

use crate::settings::PushAllow;

/// What the operator has set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    /// Nobody has to log in, and everybody may do everything.
    pub(crate) open: bool,
    /// Everybody may pull.
    pub(crate) anonymous_pull: bool,
    /// Who may push where.
    pub(crate) push: PushAllow,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who<'a> {
    /// Nobody has said.
    Anonymous,
    /// Somebody with a login.
    User(&'a str),
    /// A machine that may pull from one repository for a while.
    Guest(&'a RepositoryName),
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may go on.
    Allow,
    /// It might, after a login (401).
    LogIn,
    /// It may not, whatever is said (403).
    Refuse,
    /// It could, were the registry not read-only (405).
    ReadOnly,
}

/// Decides. `repository` is `None` for what belongs to none: the ping, and the catalog.
pub(crate) fn decide(
    policy: &Policy,
    read_only: bool,
    who: Who<'_>,
    action: Action,
    repository: Option<&RepositoryName>,
) -> Verdict {
    let verdict = match (who, action) {
        _ if policy.open => Verdict::Allow,
        // A client asks first whether it has to log in, and logs in only if told so here: docker, podman and skopeo learn
        // the challenge from the ping alone. So nobody passes it unnamed, even where everybody may pull.
        (Who::Anonymous, Action::Ping) => Verdict::LogIn,
        (Who::Anonymous, Action::Pull) => pull_unnamed(policy, repository),
        (Who::Anonymous, _) => Verdict::LogIn,
        (Who::User(_), Action::Ping | Action::Pull) => Verdict::Allow,
        (Who::User(user), Action::Push | Action::Delete) => match repository {
            Some(repository) if policy.push.allows(user, repository) => Verdict::Allow,
            _ => Verdict::Refuse,
        },
        (Who::Guest(_), Action::Ping) => Verdict::Allow,
        (Who::Guest(own), Action::Pull) if repository == Some(own) => Verdict::Allow,
        // As if its token were wrong: what a guest is for is nobody else's business.
        (Who::Guest(_), Action::Pull) => pull_unnamed(policy, repository),
        (Who::Guest(_), _) => Verdict::LogIn,
    };
    match (verdict, action) {
        (Verdict::Allow, Action::Push | Action::Delete) if read_only => Verdict::ReadOnly,
        _ => verdict,
    }
}

/// The catalog tells the names of everything, so it is for those who have one themselves.
fn pull_unnamed(policy: &Policy, repository: Option<&RepositoryName>) -> Verdict {
    if policy.anonymous_pull && repository.is_some() { Verdict::Allow } else { Verdict::LogIn }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIONS: [Action; 4] = [Action::Ping, Action::Pull, Action::Push, Action::Delete];

    /// Rows: who, and where; columns: ping, pull, push, delete. `+` allow, `?` log in, `-` refuse, `r` read-only.
    type Row = (&'static str, &'static str, &'static str);

    fn check(name: &str, policy: &Policy, read_only: bool, rows: &[Row]) {
        let own: RepositoryName = "os-images/debian".parse().unwrap();
        for (who, repository, wanted) in rows {
            let asker = match *who {
                "anonymous" => Who::Anonymous,
                "guest" => Who::Guest(&own),
                user => Who::User(user),
            };
            let repository = (!repository.is_empty()).then(|| repository.parse::<RepositoryName>().unwrap());
            let found: String = ACTIONS
                .into_iter()
                .map(|action| match decide(policy, read_only, asker, action, repository.as_ref()) {
                    Verdict::Allow => '+',
                    Verdict::LogIn => '?',
                    Verdict::Refuse => '-',
                    Verdict::ReadOnly => 'r',
                })
                .collect();
            assert_eq!(found, *wanted, "{name}: {who} at {repository:?} (ping, pull, push, delete)");
        }
    }

    fn policy(open: bool, anonymous_pull: bool, push: &str) -> Policy {
        let push = if push.is_empty() { crate::settings::PushAllow::default() } else { push.parse().unwrap() };
        Policy { open, anonymous_pull, push }
    }

    #[test]
    fn the_whole_matrix() {
        let everybody = [
            ("anonymous", "tools/x", "++++"),
            ("anonymous", "", "++++"),
            ("alice", "tools/x", "++++"),
            ("guest", "tools/x", "++++"),
        ];
        check("open", &policy(true, false, ""), false, &everybody);
        check("open, push list", &policy(true, true, "bob=x"), false, &everybody);
        check(
            "open, read-only",
            &policy(true, false, ""),
            true,
            &[("anonymous", "tools/x", "++rr"), ("guest", "os-images/debian", "++rr")],
        );
        check(
            "login",
            &policy(false, false, ""),
            false,
            &[
                ("anonymous", "tools/x", "????"),
                ("anonymous", "", "????"),
                ("alice", "tools/x", "++++"),
                ("alice", "", "++--"),
                ("guest", "os-images/debian", "++??"),
                ("guest", "os-images/fedora", "+???"),
                ("guest", "", "+???"),
            ],
        );
        check(
            "login, anonymous pull",
            &policy(false, true, ""),
            false,
            &[
                ("anonymous", "tools/x", "?+??"),
                ("anonymous", "", "????"),
                ("alice", "tools/x", "++++"),
                ("guest", "os-images/fedora", "++??"),
            ],
        );
        check(
            "login, push list",
            &policy(false, false, "alice=tools;*=scratch"),
            false,
            &[
                ("alice", "tools/x", "++++"),
                ("alice", "toolshed", "++--"),
                ("alice", "os-images/debian", "++--"),
                ("alice", "scratch", "++++"),
                ("bob", "tools/x", "++--"),
                ("bob", "scratch/1", "++++"),
                ("anonymous", "scratch/1", "????"),
                ("guest", "scratch/1", "+???"),
            ],
        );
        check(
            "login, read-only",
            &policy(false, false, "alice=tools"),
            true,
            &[
                ("alice", "tools/x", "++rr"),
                ("bob", "tools/x", "++--"),
                ("anonymous", "tools/x", "????"),
                ("guest", "os-images/debian", "++??"),
            ],
        );
        check(
            "login, anonymous pull, push list, read-only",
            &policy(false, true, "alice=tools"),
            true,
            &[
                ("anonymous", "tools/x", "?+??"),
                ("alice", "tools/x", "++rr"),
                ("alice", "other", "++--"),
                ("guest", "tools/x", "++??"),
            ],
        );
    }
}
