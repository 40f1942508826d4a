//! Virtual media: an image in, an image out, and looking whether it is true.

use serde_json::{Value, json};
use url::Url;

use crate::client::{Answer, Call};
use crate::discovery::{Bmc, Slot};
use crate::error::Error;
use crate::model::VirtualMedia;
use crate::options::Phase;
use crate::retry::Poll;
use crate::vendor::Vendor;

/// How an image is inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaOptions {
    /// The machine may not write to the image.
    pub write_protected: bool,
    /// Whether the BMC verifies the certificate of the server that has the image; `None` leaves its setting alone.
    /// Services that do not know the setting are not an error.
    pub verify_certificate: Option<bool>,
}

impl Default for MediaOptions {
    fn default() -> Self {
        Self { write_protected: true, verify_certificate: None }
    }
}

/// What became of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertOutcome {
    /// The image was inserted now.
    Inserted,
    /// It had been in the drive already; nothing was sent.
    AlreadyInserted,
}

impl Bmc {
    /// Puts the image at `url` into a drive and waits until the BMC says that it is there. Another image is ejected
    /// first. Phase name and metrics are the caller's choice.
    ///
    /// # Errors
    /// [`Error::MediaUnreachable`] when the BMC says that it cannot fetch the image; [`Error::Unsupported`] when the
    /// drive can neither be told by action nor by writing to it; [`Error::Protocol`] when the BMC accepts the order and
    /// does not carry it out; and those of any request.
    pub async fn insert(
        &self,
        phase: Phase,
        slot: &Slot,
        url: &Url,
        options: MediaOptions,
    ) -> Result<InsertOutcome, Error> {
        let media = self.media(phase, slot).await?;
        if media.occupied() {
            if holds(&media, url) {
                return Ok(InsertOutcome::AlreadyInserted);
            }
            self.eject(phase, slot).await?;
        }
        self.set_verification(phase, slot, options).await?;
        let action = media.actions.and_then(|actions| actions.insert?.target).filter(|target| !target.is_empty());
        let action = action.as_deref();
        let sent = match self.insert_once(phase, slot, action, url, options).await {
            // Looking has shown that the order is not carried out: it was lost, and may be given again.
            Err(Error::NoAnswer { .. }) => self.insert_once(phase, slot, action, url, options).await,
            other => other,
        };
        sent.map(|()| InsertOutcome::Inserted)
    }

    /// Gives the order and waits until the drive holds the image. When the answer is lost or an error, what the drive
    /// holds counts.
    async fn insert_once(
        &self,
        phase: Phase,
        slot: &Slot,
        action: Option<&str>,
        url: &Url,
        options: MediaOptions,
    ) -> Result<(), Error> {
        let sent = match action {
            Some(target) => self.insert_by_action(phase, slot, target, url, options).await,
            None => self.insert_by_writing(phase, slot, url, options).await,
        };
        let settle = phase.within(self.client.options.settle);
        let error = match sent {
            Ok(answer) if answer.is_accepted() => {
                return self.confirm(phase, phase.within(self.client.options.insert_timeout), slot, url).await;
            }
            Ok(_) => return self.confirm(phase, settle, slot, url).await,
            Err(error) => error,
        };
        let there = match error {
            Error::NoAnswer { .. } => self.confirm(phase, settle, slot, url).await.is_ok(),
            Error::Http { .. } => {
                self.media(phase, slot).await.is_ok_and(|media| media.occupied() && holds(&media, url))
            }
            _ => false,
        };
        if there { Ok(()) } else { Err(error) }
    }

    /// Empties a drive and waits until the BMC says so. An empty drive is left alone.
    ///
    /// # Errors
    /// [`Error::Protocol`] when the BMC accepts the order and does not carry it out, and those of any request.
    pub async fn eject(&self, phase: Phase, slot: &Slot) -> Result<(), Error> {
        let media = self.media(phase, slot).await?;
        if !media.occupied() {
            return Ok(());
        }
        let action = media.actions.and_then(|actions| actions.eject?.target).filter(|target| !target.is_empty());
        let sent = match action {
            // iLO refuses this POST without a body.
            Some(target) => {
                let nothing = json!({});
                self.client.send(&Call::post(phase, &target, &nothing).repeatable()).await
            }
            None => {
                let empty = json!({ "Image": null, "Inserted": false });
                self.client.write(&Call::patch(phase, &slot.path, &empty)).await
            }
        };
        if let Err(error) = sent {
            // Some services answer an error when the drive has become empty meanwhile.
            let empty = matches!(error, Error::Http { .. })
                && self.media(phase, slot).await.is_ok_and(|media| !media.occupied());
            return if empty { Ok(()) } else { Err(error) };
        }
        let settle = phase.within(self.client.options.settle);
        let mut poll = Poll::new(settle, self.client.options.poll);
        while self.media(phase, slot).await?.occupied() {
            if !poll.wait().await {
                return Err(self.unsettled(phase, slot, "the image is still in the drive after it was ejected"));
            }
        }
        Ok(())
    }

    async fn media(&self, phase: Phase, slot: &Slot) -> Result<VirtualMedia, Error> {
        Ok(self.client.get(phase, &slot.path).await?.value)
    }

    /// Writes `VerifyCertificate` where the caller has an opinion and the service knows it.
    async fn set_verification(&self, phase: Phase, slot: &Slot, options: MediaOptions) -> Result<(), Error> {
        let Some(verify) = options.verify_certificate else { return Ok(()) };
        let body = json!({ "VerifyCertificate": verify });
        match self.client.write(&Call::patch(phase, &slot.path, &body).probe()).await {
            Ok(_) | Err(Error::Http { status: 400 | 403 | 404 | 405 | 422 | 500 | 501, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends the insert action, in one form after the other as long as the service says that the form is wrong.
    async fn insert_by_action(
        &self,
        phase: Phase,
        slot: &Slot,
        target: &str,
        url: &Url,
        options: MediaOptions,
    ) -> Result<Answer, Error> {
        let mut first = None;
        for body in bodies(self.client.vendor, url, options) {
            let call = Call::post(phase, target, &body).inserting(&slot.id).limit(self.client.options.insert_timeout);
            match self.client.send(&call).await {
                Err(error @ Error::Http { status: 400 | 422, .. }) => {
                    first.get_or_insert(error);
                }
                other => return other,
            }
        }
        // The first form is the usual one: what the service says about the others misleads.
        Err(first.unwrap_or(Error::Unsupported { what: "inserting an image".to_owned() }))
    }

    /// Writes to the drive itself, for services without the action (XCC).
    async fn insert_by_writing(
        &self,
        phase: Phase,
        slot: &Slot,
        url: &Url,
        options: MediaOptions,
    ) -> Result<Answer, Error> {
        let body = json!({ "Image": url.as_str(), "Inserted": true, "WriteProtected": options.write_protected });
        let call = Call::patch(phase, &slot.path, &body).inserting(&slot.id).limit(self.client.options.insert_timeout);
        match self.client.write(&call).await {
            Err(Error::Http { status: 404 | 405 | 501, .. }) => {
                Err(Error::Unsupported { what: format!("inserting an image: drive {} has no way to do it", slot.id) })
            }
            other => other,
        }
    }

    /// Waits until the drive holds the image.
    async fn confirm(&self, phase: Phase, settle: Phase, slot: &Slot, url: &Url) -> Result<(), Error> {
        let mut poll = Poll::new(settle, self.client.options.poll);
        loop {
            let media = self.media(phase, slot).await?;
            if media.occupied() && shows(&media, url) {
                return Ok(());
            }
            if !poll.wait().await {
                let problem =
                    if media.occupied() { "the drive holds another image" } else { "the drive is still empty" };
                return Err(self.unsettled(phase, slot, &format!("{problem} after the order to insert was accepted")));
            }
        }
    }

    /// What was waited for did not come: because the phase is over, or because the BMC does not do it.
    fn unsettled(&self, phase: Phase, slot: &Slot, problem: &str) -> Error {
        let error = Error::protocol(&self.client.clean(&slot.path), problem);
        if phase.remaining() > self.client.options.poll.0 {
            return error;
        }
        Error::Timeout { phase: phase.op, source: Some(Box::new(error)) }
    }
}

/// Bodies of the insert action, the one that the vendor's services take first.
///
/// Forms written by hand from reports: Supermicro X11 and X12 refuse `Inserted` and `WriteProtected`, some services want
/// the protocol or the method spelled out, NVIDIA DGX wants credentials even where none are needed.
fn bodies(vendor: Vendor, url: &Url, options: MediaOptions) -> Vec<Value> {
    let image = url.as_str();
    let protocol = if url.scheme() == "https" { "HTTPS" } else { "HTTP" };
    let protected = options.write_protected;
    let usual = json!({ "Image": image, "Inserted": true, "WriteProtected": protected });
    let bare = json!({ "Image": image });
    let typed = json!({ "Image": image, "TransferProtocolType": protocol });
    let stream = json!({ "Image": image, "Inserted": true, "WriteProtected": protected,
        "TransferProtocolType": protocol, "TransferMethod": "Stream" });
    let named = json!({ "Image": image, "TransferProtocolType": protocol, "UserName": "none", "Password": "none" });
    match vendor {
        Vendor::Supermicro => vec![bare, typed, usual, stream],
        Vendor::Dgx => vec![named, usual, bare, typed, stream],
        _ => vec![usual, bare, typed, stream, named],
    }
}

/// The drive was given exactly this address. A signed address that was renewed is another one: the old one runs out.
fn holds(media: &VirtualMedia, url: &Url) -> bool {
    let image = media.image.as_deref().unwrap_or_default();
    image == url.as_str() || Url::parse(image).is_ok_and(|image| image == *url)
}

/// What the drive shows can be this image: services leave the address out, cut its query off or keep the file name only.
fn shows(media: &VirtualMedia, url: &Url) -> bool {
    let image = media.image.as_deref().unwrap_or_default();
    if image.is_empty() || holds(media, url) {
        return true;
    }
    let shown = image.split('?').next().unwrap_or_default();
    let file = url.path().rsplit('/').next().unwrap_or_default();
    !file.is_empty() && shown.rsplit(['/', '\\']).next() == Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn showing(image: &str) -> VirtualMedia {
        VirtualMedia { image: Some(image.to_owned()), ..VirtualMedia::default() }
    }

    #[test]
    fn an_image_is_recognised() {
        let url = Url::parse("http://192.0.2.1:8080/media/tasks/1/task.iso?expires=2&sig=x").unwrap();
        assert!(holds(&showing("http://192.0.2.1:8080/media/tasks/1/task.iso?expires=2&sig=x"), &url));
        assert!(!holds(&showing("http://192.0.2.1:8080/media/tasks/1/task.iso?expires=1&sig=y"), &url));
        for shown in ["", "http://192.0.2.1:8080/media/tasks/1/task.iso", "task.iso", "\\\\192.0.2.1\\task.iso"] {
            assert!(shows(&showing(shown), &url), "{shown}");
        }
        assert!(!shows(&showing("http://192.0.2.1/other.iso"), &url));
    }

    #[test]
    fn the_protocol_follows_the_scheme() {
        let url = Url::parse("https://192.0.2.1/a.iso").unwrap();
        for vendor in [Vendor::Generic, Vendor::Supermicro, Vendor::Dgx] {
            let bodies = bodies(vendor, &url, MediaOptions::default());
            assert!(bodies.iter().all(|body| body["Image"] == url.as_str()));
            let protocols: Vec<_> = bodies.iter().filter_map(|body| body.get("TransferProtocolType")).collect();
            assert!(!protocols.is_empty() && protocols.iter().all(|protocol| *protocol == "HTTPS"));
        }
    }
}
