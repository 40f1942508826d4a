//! What `switch-to-configuration dry-activate` says, as lists (nixpkgs, `switch-to-configuration-ng`).

use std::collections::BTreeSet;

use super::Answer;
use crate::model::Preview;

/// Makes lists of an answer to `preview`.
pub fn preview(answer: &Answer) -> Preview {
    let mut preview = Preview { reboot_required: answer.reboot_required.unwrap_or_default(), ..Preview::default() };
    for line in &answer.dry {
        let Some((said, units)) = line.split_once(" units: ").or_else(|| line.split_once(" units:")) else { continue };
        let list = match said.trim() {
            "would stop the following" => &mut preview.stop,
            "would start the following" => &mut preview.start,
            "would restart the following" => &mut preview.restart,
            "would reload the following" => &mut preview.reload,
            "would NOT stop the following changed" | "would NOT restart the following changed" => {
                &mut preview.untouched
            }
            _ => continue,
        };
        list.extend(units.split(',').map(str::trim).filter(|unit| !unit.is_empty()).map(str::to_owned));
    }
    let names = |paths: &[String]| paths.iter().map(|path| name(path)).collect::<BTreeSet<_>>();
    let (added, removed) = (names(&answer.added), names(&answer.removed));
    // The same name with another hash is a rebuild.
    preview.added = added.iter().cloned().collect();
    preview.removed = removed.difference(&added).cloned().collect();
    preview
}

/// What follows the hash.
fn name(path: &str) -> String {
    let last = path.rsplit('/').next().unwrap_or(path);
    last.get(33..).unwrap_or(last).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_paths_become_lists() {
        let answer = Answer {
            dry: [
                "would stop the following units: a.service, b.timer",
                "would NOT stop the following changed units: d.service",
                "would activate the configuration...",
                "would reload the following units: dbus.service",
                "would restart the following units: web.service,x.service",
                "would start the following units: c.socket",
                "nothing else",
            ]
            .map(str::to_owned)
            .to_vec(),
            added: vec![
                "/nix/store/0c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-web-2".to_owned(),
                "/nix/store/2c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-etc".to_owned(),
            ],
            removed: vec![
                "/nix/store/1c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-web-1".to_owned(),
                "/nix/store/3c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-etc".to_owned(),
            ],
            reboot_required: Some(true),
            ..Answer::default()
        };
        let preview = preview(&answer);
        assert_eq!(preview.stop, ["a.service", "b.timer"]);
        assert_eq!((preview.start.len(), preview.restart.len()), (1, 2));
        assert_eq!(
            (preview.reload, preview.untouched),
            (vec!["dbus.service".to_owned()], vec!["d.service".to_owned()])
        );
        assert_eq!(
            (preview.added, preview.removed),
            (vec!["etc".to_owned(), "web-2".to_owned()], vec!["web-1".to_owned()])
        );
        assert!(preview.reboot_required);
    }
}
