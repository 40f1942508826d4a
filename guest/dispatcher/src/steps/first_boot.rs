//! Puts the reporter of the first boot into the new system.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use host::{remove_if_present, write_atomic};

use super::Context;
use super::target::{in_root, make_directory};
use crate::failure::{Failure, code};
use crate::http;
use crate::report::first_boot::{AUTHORITIES, CONFIG, Config, PROGRAM, UNIT, UNIT_LINK};
use crate::report::webhook::FIRST_BOOT_REPORTER;

/// The unit. It gives up after some hours: nobody waits for it any more.
const UNIT_TEXT: &str = "\
[Unit]
Description=Tell the controller that this system has booted
Wants=network-online.target
After=network-online.target
ConditionPathExists=/etc/cairn/first-boot.json
StartLimitIntervalSec=6h
StartLimitBurst=20

[Service]
Type=oneshot
ExecStart=/usr/lib/cairn/first-boot first-boot
Restart=on-failure
RestartSec=30s
TimeoutStartSec=15min

[Install]
WantedBy=multi-user.target
";

/// Installs the reporter and says whether it works there. A system where it does not is left without a trace of it.
pub(super) fn install(context: &Context<'_>, root: &Path) -> Result<bool, Failure> {
    let works = has_systemd(root) && {
        put(context, root)?;
        runs(context, root)
    };
    if !works {
        remove(root)?;
    }
    context.workspace.write_json(FIRST_BOOT_REPORTER, &works)?;
    Ok(works)
}

fn has_systemd(root: &Path) -> bool {
    ["usr/lib/systemd/systemd", "lib/systemd/systemd"].iter().any(|path| root.join(path).exists())
}

fn put(context: &Context<'_>, root: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(code::STATE_UNWRITABLE, format!("cannot install the first-boot reporter: {error}"))
    };
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    for path in [PROGRAM, CONFIG, UNIT, UNIT_LINK] {
        if let Some(parent) = at(path).parent() {
            make_directory(parent)?;
        }
    }
    std::env::current_exe().and_then(|own| std::fs::copy(own, at(PROGRAM))).map_err(failed)?;
    std::fs::set_permissions(at(PROGRAM), std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    // The controller's certificate can be signed by an authority that only this system knows.
    let authorities = match http::authorities_file() {
        Some(file) => {
            std::fs::copy(file, at(AUTHORITIES)).map_err(failed)?;
            Some(AUTHORITIES.into())
        }
        None => None,
    };
    let config = Config {
        url: context.callback.first_boot_url.clone(),
        token: context.callback.first_boot_token.clone(),
        authorities,
    };
    let text = serde_json::to_vec(&config).map_err(Failure::of(code::STATE_UNWRITABLE))?;
    let written = write_atomic(&at(CONFIG), &text, 0o600)
        .and_then(|()| write_atomic(&at(UNIT), UNIT_TEXT.as_bytes(), 0o644))
        .and_then(|()| remove_if_present(&at(UNIT_LINK)));
    written.map_err(Failure::of(code::STATE_UNWRITABLE))?;
    symlink(UNIT, at(UNIT_LINK)).map_err(failed)
}

/// Whether the program's libraries are there.
fn runs(context: &Context<'_>, root: &Path) -> bool {
    match context.host.run(&in_root(root, PROGRAM).arg("--version")) {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(error = %error, "the first-boot reporter does not run in the new system");
            false
        }
    }
}

/// Removes everything that [`put`] makes.
fn remove(root: &Path) -> Result<(), Failure> {
    for path in [UNIT_LINK, UNIT, CONFIG, AUTHORITIES, PROGRAM] {
        remove_if_present(&root.join(path.trim_start_matches('/'))).map_err(Failure::of(code::STATE_UNWRITABLE))?;
    }
    Ok(())
}
