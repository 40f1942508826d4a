//! What the effects of [`crate::plan`] do.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use recipe::callback::{Artifact, Callback, PullCredentials};
use redfish::PowerState;
use url::Url;

use crate::adapters::bmc::{Connection, Media, power_word};
use crate::context::Metal;
use crate::errors;
use crate::media::{Medium, signed_path};
use crate::metrics::Metrics;
use crate::model::{Failure, Job, Level, Server};
use crate::plan::{Effect, Seen};
use crate::pull_registry::{self, PullRegistry};
use crate::store::Error;
use crate::task_iso::{self, Contents};
use crate::tokens::{Purpose, job_user};
use cairn_core::chain;

/// What a job's task holds on to between effects; all of it can be had again.
#[derive(Default)]
pub(super) struct Bench {
    connection: Option<Connection>,
    power: Option<(bool, Instant)>,
}

impl Bench {
    /// Logs out.
    pub(super) async fn close(self) {
        if let Some(connection) = self.connection {
            connection.close().await;
        }
    }
}

/// Why an effect did not come about: the database, which ends the worker, or the world, which the plan judges.
enum Trouble {
    Store(Error),
    World(Failure),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::World(failure)
    }
}

/// Carries an effect out and says what was seen.
pub(super) async fn carry_out(metal: &Arc<Metal>, job: &Job, effect: Effect, bench: &mut Bench) -> Result<Seen, Error> {
    match attempt(metal, job, effect, bench).await {
        Ok(seen) => Ok(seen),
        Err(Trouble::Store(error)) => Err(error),
        Err(Trouble::World(failure)) => {
            // A connection that failed is not trusted again.
            if let Some(connection) = bench.connection.take() {
                connection.close().await;
            }
            Ok(Seen::Failed(failure))
        }
    }
}

async fn attempt(metal: &Arc<Metal>, job: &Job, effect: Effect, bench: &mut Bench) -> Result<Seen, Trouble> {
    let server = server(metal, job).await?;
    if effect == Effect::BuildMedia {
        build_media(metal, job, &server).await?;
        return Ok(Seen::Done(effect));
    }
    if bench.connection.is_none() {
        bench.connection = Some(connect(metal, job, &server).await?);
    }
    let Some(bmc) = &bench.connection else { return Ok(Seen::Nothing) };
    match effect {
        Effect::BuildMedia => {}
        Effect::Discover => discover(metal, job, &server, bmc).await?,
        Effect::Mount => mount(metal, job, &server, bmc).await?,
        Effect::SetBootOverride => {
            let warnings = bmc.boot_from_cd().await?;
            let told = if warnings.is_empty() { String::new() } else { format!(" ({})", warnings.join(", ")) };
            note(metal, job, &format!("boot override set{told}"), "redfish.boot-override").await?;
        }
        Effect::SwitchOff => {
            metal.store.touch_power(job.id).await?;
            bmc.switch_off(true).await?;
            power_told(metal, job, bmc, PowerState::Off).await?;
            note(metal, job, "the machine is off", "redfish.reset").await?;
        }
        Effect::SwitchOn => {
            let begun = Instant::now();
            bmc.switch_on().await?;
            power_told(metal, job, bmc, PowerState::On).await?;
            Metrics::seconds(&metal.metrics.bmc_ready, begun.elapsed());
            note(metal, job, "the machine is on", "redfish.reset").await?;
        }
        Effect::ForceOff => {
            bmc.switch_off(false).await?;
            power_told(metal, job, bmc, PowerState::Off).await?;
        }
        Effect::ObservePower => {
            let state = match bmc.observe().await {
                Ok(state) => state,
                Err(failure) => {
                    // Nobody knows what it was in between.
                    bench.power = None;
                    return Err(failure.into());
                }
            };
            power_told(metal, job, bmc, state).await?;
            return Ok(power(&mut bench.power, state));
        }
        Effect::Eject => {
            bmc.eject().await?;
            note(metal, job, "media ejected", "cleanup.unmount").await?;
        }
        Effect::ClearOverride => bmc.clear_override().await?,
    }
    Ok(Seen::Done(effect))
}

/// Notes what a BMC said of its machine's power.
async fn power_told(metal: &Metal, job: &Job, bmc: &Connection, state: PowerState) -> Result<(), Error> {
    let now = metal.clock.now();
    metal.store.power_seen(job.id, power_word(state), now).await?;
    metal.store.server_seen(&job.serial, bmc.vendor(), Some(power_word(state)), now).await
}

/// For how long a machine has been seen in its state; anything but off counts as on.
fn power(last: &mut Option<(bool, Instant)>, state: PowerState) -> Seen {
    let on = state != PowerState::Off;
    let since = match *last {
        Some((was, since)) if was == on => since,
        _ => Instant::now(),
    };
    *last = Some((on, since));
    Seen::Power { on, lasting: since.elapsed() }
}

async fn server(metal: &Metal, job: &Job) -> Result<Server, Trouble> {
    metal.store.server(&job.serial).await?.ok_or_else(|| {
        Trouble::World(Failure {
            step: "validation.server".to_owned(),
            code: web::codes::NOT_FOUND.to_owned(),
            detail: format!("the record of server {} is gone", job.serial),
        })
    })
}

async fn note(metal: &Metal, job: &Job, message: &str, step: &str) -> Result<(), Error> {
    metal.store.append_event(job.id, metal.clock.now(), Level::Info, message, Some(step)).await?;
    metal.wake.job(job.id);
    Ok(())
}

async fn connect(metal: &Metal, job: &Job, server: &Server) -> Result<Connection, Trouble> {
    let connection = Connection::open(metal, server).await?;
    metal.store.server_seen(&job.serial, connection.vendor(), None, metal.clock.now()).await?;
    Ok(connection)
}

async fn discover(metal: &Metal, job: &Job, server: &Server, bmc: &Connection) -> Result<(), Trouble> {
    let slots = bmc.slots()?;
    if let Some(doubt) = bmc.identify(server).await? {
        metal.store.append_event(job.id, metal.clock.now(), Level::Warn, &doubt, Some("redfish.discover")).await?;
    }
    let message = format!("BMC found: vendor {}, {slots} slot(s) for media", bmc.vendor());
    Ok(note(metal, job, &message, "redfish.discover").await?)
}

async fn mount(metal: &Metal, job: &Job, server: &Server, bmc: &Connection) -> Result<(), Trouble> {
    let Some(iso) = &job.task_iso else { return Err(iso_failure("the task ISO is not there").into()) };
    let base = metal.media_url(server);
    let at = |path: &str| join(&base, path);
    let media = Media {
        boot: at(&signed_path(&metal.signing, job.id, Medium::Boot, iso))?,
        task: at(&signed_path(&metal.signing, job.id, Medium::Task, iso))?,
        maintenance: match &metal.settings.maintenance_iso_url {
            Some(url) => url.clone(),
            None => at(&signed_path(&metal.signing, job.id, Medium::Maintenance, iso))?,
        },
    };
    // Written down first: whatever happens next, clean-up looks into the slots.
    metal.store.touch_media(job.id).await?;
    let slots = bmc.mount(&media, server.spec.overrides.slots).await?;
    let message = format!("maintenance OS and task inserted into {}", slots.join(" and "));
    Ok(note(metal, job, &message, "redfish.mount.maintenance").await?)
}

async fn build_media(metal: &Arc<Metal>, job: &Job, server: &Server) -> Result<(), Trouble> {
    let begun = Instant::now();
    let built = {
        let elsewhere = job.artifact.as_ref().and_then(|artifact| artifact.registry.as_ref());
        let record = match elsewhere {
            Some(url) => metal.store.pull_registry(&pull_registry::host_of(url)).await?,
            None => None,
        };
        let (metal, job, server) = (Arc::clone(metal), job.clone(), server.clone());
        tokio::task::spawn_blocking(move || write_media(&metal, &job, &server, record.as_ref())).await
    };
    let iso = match built {
        Ok(Ok(iso)) => iso,
        Ok(Err(failure)) => {
            metal.metrics.iso_failures.inc();
            return Err(failure.into());
        }
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    Metrics::seconds(&metal.metrics.iso_duration, begun.elapsed());
    metal.metrics.iso_size.set(i64::try_from(iso.size_bytes).unwrap_or(i64::MAX));
    tracing::info!(path = iso.path, size_bytes = iso.size_bytes, sha256 = iso.sha256, "task ISO built");
    metal.store.set_task_iso(job.id, &iso).await?;
    let message = format!("task ISO built: {} bytes, sha256 {}", iso.size_bytes, iso.sha256);
    Ok(note(metal, job, &message, "iso.build").await?)
}

fn write_media(
    metal: &Metal,
    job: &Job,
    server: &Server,
    record: Option<&PullRegistry>,
) -> Result<crate::model::TaskIso, Failure> {
    let document: serde_json::Value =
        serde_json::from_str(&job.recipe_json).map_err(|error| iso_failure(&chain(&error)))?;
    let recipe = recipe::parse(&document).map_err(|_| iso_failure("the stored recipe is not valid any more"))?;
    let callback = callback(metal, job, server, record)?;
    let contents = Contents {
        job: job.id,
        recipe: &recipe,
        callback: &callback,
        network: server.spec.network.as_ref(),
        created_at: job.created_at,
    };
    let iso = task_iso::store(&metal.settings.task_iso_dir, &contents, url_expiry(metal))
        .map_err(|error| iso_failure(&chain(&error)))?;
    let kept = keep_maintenance_iso(metal, Path::new(&iso.path))?;
    let unusable = |detail: String| Failure {
        step: "iso.build".to_owned(),
        code: errors::MAINTENANCE_IMAGE_MISSING.to_owned(),
        detail,
    };
    match kept.map(|path| task_iso::room(&path)) {
        Some(Ok(room)) if room.length < iso.size_bytes => {
            Err(unusable("the maintenance image keeps too little room".to_owned()))
        }
        Some(Err(error)) => Err(unusable(chain(&error))),
        _ => Ok(iso),
    }
}

/// The job keeps the maintenance ISO that it began with, even when a new one is built meanwhile: a second name, no copy.
fn keep_maintenance_iso(metal: &Metal, task: &Path) -> Result<Option<PathBuf>, Failure> {
    let source = metal.settings.maintenance_iso();
    let kept = task.with_file_name("maintenance.iso");
    match std::fs::remove_file(&kept) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(iso_failure(&format!("cannot remove {}: {error}", kept.display())));
        }
        _ => {}
    }
    match std::fs::hard_link(&source, &kept) {
        Ok(()) => Ok(Some(kept)),
        // Only a BMC with two slots can be served then, and it is given its own URL.
        Err(_) if metal.settings.maintenance_iso_url.is_some() => Ok(None),
        // Another file system, or the image is root's and the kernel protects it (fs.protected_hardlinks): then the name is
        // only followed, and a newly built image shows through.
        Err(error) if matches!(error.kind(), ErrorKind::CrossesDevices | ErrorKind::PermissionDenied) => {
            std::os::unix::fs::symlink(&source, &kept)
                .map(|()| Some(kept.clone()))
                .map_err(|error| iso_failure(&format!("cannot link {}: {error}", kept.display())))
        }
        Err(error) => Err(Failure {
            step: "iso.build".to_owned(),
            code: errors::MAINTENANCE_IMAGE_MISSING.to_owned(),
            detail: format!("cannot use the maintenance image {}: {error}", source.display()),
        }),
    }
}

/// Forgets the second name of the maintenance ISO once nobody boots from it.
pub(super) fn forget_media(metal: &Metal, job: &Job) {
    let kept = metal.settings.task_iso_dir.join(job.id.to_string()).join("maintenance.iso");
    if let Err(error) = std::fs::remove_file(&kept)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(path = %kept.display(), error = &error as &dyn std::error::Error, "a maintenance ISO is kept");
    }
}

fn callback(metal: &Metal, job: &Job, server: &Server, record: Option<&PullRegistry>) -> Result<Callback, Failure> {
    let base = metal.callback_url(server);
    let at = |path: String| join(&base, &path);
    let elsewhere = job.artifact.as_ref().and_then(|artifact| artifact.registry.as_ref());
    let credentials = match (elsewhere, record) {
        (None, _) => Some(PullCredentials {
            username: job_user(job.id),
            password: metal.webhook.token(Purpose::Registry, job.id, job.attempt),
        }),
        (Some(registry), Some(record)) => record.credentials(metal, registry).map_err(|error| Failure {
            step: "iso.build".to_owned(),
            code: errors::PASSWORD_SEALED.to_owned(),
            detail: chain(&error),
        })?,
        (Some(_), None) => None,
    };
    let artifact = job.artifact.as_ref().map(|artifact| Artifact {
        registry: artifact.registry.clone().unwrap_or_else(|| base.clone()),
        repository: artifact.repository.clone(),
        digest: artifact.digest.clone(),
        credentials,
        ca_pem: record.and_then(|record| record.ca_pem.clone()),
    });
    Ok(Callback {
        job_id: job.id.as_uuid(),
        attempt: job.attempt,
        server_serial: job.serial.to_string(),
        webhook_url: at(format!("/api/v1/status-webhook/{}", job.serial))?,
        progress_url: at(format!("/api/v1/jobs/{}/progress", job.id))?,
        first_boot_url: at(format!("/api/v1/jobs/{}/first-boot", job.id))?,
        webhook_token: metal.webhook.token(Purpose::Webhook, job.id, job.attempt),
        first_boot_token: metal.webhook.token(Purpose::FirstBoot, job.id, job.attempt),
        artifact,
    })
}

/// The machine may read its media from the moment of mounting until its report, lazily: the URL holds as long.
fn url_expiry(metal: &Metal) -> i64 {
    const MOUNTING: Duration = Duration::from_mins(40);
    let hold = (metal.settings.limits.report + MOUNTING).max(metal.settings.signed_url_ttl);
    metal.clock.now().as_second().saturating_add(i64::try_from(hold.as_secs()).unwrap_or(i64::MAX))
}

fn join(base: &Url, path: &str) -> Result<Url, Failure> {
    // A base may have a path of its own, behind a proxy.
    let text = format!("{}{path}", base.as_str().trim_end_matches('/'));
    Url::parse(&text).map_err(|error| iso_failure(&format!("{base} cannot be used as an address: {error}")))
}

fn iso_failure(detail: &str) -> Failure {
    Failure { step: "iso.build".to_owned(), code: errors::ISO_BUILD.to_owned(), detail: detail.to_owned() }
}
