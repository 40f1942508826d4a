//! Who may come in, and how: everything about the listener that is decided before it is bound.

use std::num::NonZeroU32;
use std::sync::Arc;

use cairn_core::{ErrorKind, chain};
use metal::metrics::Metrics;
use observe::metrics::{Counter, Registry};
use registry::metrics::RegistryMetrics;
use settings::Resolved;
use web::{BasicAuth, Credentials, FrameOptions, ListenAddress, Problem, Proof, RateLimiter, Tls, TlsFiles};

use super::settings_problem;
use crate::arguments::Role;
use crate::config;

/// See the module.
pub(super) struct Door {
    pub(super) auth: Option<Arc<BasicAuth>>,
    pub(super) limiter: Arc<RateLimiter>,
    /// Limits failed logins.
    pub(super) failures: Arc<RateLimiter>,
    pub(super) tls: Option<Tls>,
    pub(super) frame: FrameOptions,
    pub(super) metal: Option<Metrics>,
    pub(super) registry: Option<RegistryMetrics>,
}

impl Door {
    pub(super) fn open(
        role: Role,
        resolved: &Resolved,
        address: &ListenAddress,
        families: &mut Registry,
    ) -> Result<Self, Problem> {
        let metal = (role == Role::Metal).then(|| Metrics::register(families));
        let registry = (role != Role::Vm).then(|| RegistryMetrics::register(families));
        let counter = match (&metal, &registry) {
            (Some(metal), _) => metal.login_failures.clone(),
            (None, Some(registry)) => registry.login_failures.clone(),
            (None, None) => Counter::default(),
        };
        let number = |name: &str| resolved.parse::<NonZeroU32>(name).map_err(|error| config::problem(&error));
        let limiter = Arc::new(RateLimiter::new(number("rate_limit_rpm")?, number("rate_limit_burst")?));
        let files = (resolved.parse_optional("tls_cert_file"), resolved.parse_optional("tls_key_file"));
        let tls = match (
            files.0.map_err(|error| config::problem(&error))?,
            files.1.map_err(|error| config::problem(&error))?,
        ) {
            (Some(certificate), Some(key)) => {
                let tls = Tls::load(TlsFiles { certificate, key });
                Some(tls.map_err(|error| settings_problem(chain(&error)))?)
            }
            (None, None) => None,
            _ => return Err(settings_problem("TLS_CERT_FILE and TLS_KEY_FILE are set together or not at all")),
        };
        // Failed logins have a limiter of their own: a good user is not locked out by the changes that he makes.
        let failures = Arc::new(RateLimiter::new(number("rate_limit_rpm")?, number("rate_limit_burst")?));
        let auth = auth(role, resolved, address, counter, &failures)?;
        let proxies = resolved.parse("trusted_proxies").map_err(|error| config::problem(&error))?;
        let frame = FrameOptions { metrics: web::HttpMetrics::register(families), tls: tls.is_some(), proxies };
        Ok(Self { auth, limiter, failures, tls, frame, metal, registry })
    }
}

/// Nobody on a loopback address has to log in unless a user is set; anywhere else a user has to be set. A registry alone
/// may have users of its own instead, and VMs have tokens: they judge that themselves.
fn auth(
    role: Role,
    resolved: &Resolved,
    address: &ListenAddress,
    counter: Counter,
    failures: &Arc<RateLimiter>,
) -> Result<Option<Arc<BasicAuth>>, Problem> {
    let hint =
        "set BASIC_USER and BASIC_PASS_HASH (or BASIC_PASS), or listen on a loopback address: --listen 127.0.0.1:8080";
    let user = resolved.get("basic_user");
    let mode = resolved.get("auth_mode").unwrap_or(if user.is_some() { "basic" } else { "none" });
    match mode {
        _ if role == Role::Vm => return Ok(None),
        "none" if role == Role::Registry => return Ok(None),
        "none" if address.is_loopback() => {
            tracing::warn!("no authentication: everybody on this machine may install servers (set BASIC_USER)");
            return Ok(None);
        }
        "none" => {
            let detail = format!("{address} is not a loopback address, and nobody would have to log in");
            return Err(Problem::new(ErrorKind::Invalid, "no_authentication", detail).hint(hint));
        }
        "basic" => {}
        other => return Err(settings_problem(format!("AUTH_MODE {other:?} is neither basic nor none"))),
    }
    let proof = match (resolved.secret("basic_pass_hash"), resolved.secret("basic_pass")) {
        (Some(hash), _) => Proof::Hash(hash),
        (None, Some(plain)) => Proof::Plain(plain),
        (None, None) => return Err(settings_problem("AUTH_MODE basic needs a password").hint(hint)),
    };
    let user = user.ok_or_else(|| settings_problem("AUTH_MODE basic needs a user").hint(hint))?.to_owned();
    let auth = BasicAuth::new("shoal-provisioner", vec![Credentials { user, proof }])
        .map_err(|error| settings_problem(chain(&error)))?
        .on_failure(move || {
            counter.inc();
        })
        .limit_failures(Arc::clone(failures));
    Ok(Some(Arc::new(auth)))
}
