//! Secrets do not reach the log, at any level.

use std::io;
use std::sync::{Arc, Mutex};

use redfish::{Error, MediaOptions, ResetIntent};
use tracing_subscriber::filter::LevelFilter;
use url::Url;

use crate::bmc::{Fake, Reply};
use crate::support::{PASSWORD, SIGNATURE, Seen, connect, phase, quick};

/// Log output, kept.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn secrets_do_not_reach_the_log() {
    let kept = Kept::default();
    let writer = kept.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let fake = Fake::start().await;
    fake.machine().refuse_basic = true;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    let image = format!("http://192.0.2.1/media/s/1/{SIGNATURE}/job/a.iso?sig={SIGNATURE}");
    let text = format!("busy with {image} for {PASSWORD}");
    fake.hook(move |request, _| {
        let token = request.header("x-auth-token").unwrap_or_default();
        let text = format!("{text} {token}");
        if request.is("POST", "InsertMedia") { Reply::message(503, "x", &text) } else { None }
    });
    let slot = bmc.slots().unwrap()[0].clone();
    let image: Url = image.parse().unwrap();
    let error = bmc.insert(phase("mount.task"), &slot, &image, MediaOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Http { status: 503, .. }), "{error}");
    bmc.reset(phase("reset"), ResetIntent::On).await.unwrap();
    bmc.close(phase("discover")).await.unwrap();

    let log = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("redfish request will be repeated") && log.contains("busy with"), "{log}");
    for secret in [PASSWORD, SIGNATURE, "planted-token"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
