//! Reading a BMC by its links: service root, the system, its manager, the virtual media drives.

use std::sync::Arc;

use url::Url;

use crate::client::Client;
use crate::error::Error;
use crate::model::{Collection, Link, Manager, ServiceRoot, System, VirtualMedia};
use crate::options::{Credentials, Observer, Options, Phase};
use crate::power::PowerState;
use crate::vendor::Vendor;

/// Pages of a collection that are read.
const PAGES: usize = 16;

/// A virtual media drive that takes a CD image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// `Id` of the resource, for example `Cd`.
    pub id: String,
    /// Its address on the BMC.
    pub path: String,
    /// Whether it says that it is a CD or DVD drive. A USB stick that takes an image may not boot an ISO, and is not
    /// the second CD that an installation with two media needs.
    pub is_cd: bool,
    /// Suitability; higher comes first.
    score: u8,
}

/// What is known about the machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Inventory {
    /// Family of the BMC.
    pub vendor: Vendor,
    /// Its label in metrics.
    pub vendor_label: String,
    /// Version of the Redfish protocol.
    pub redfish_version: Option<String>,
    /// `Id` of the system.
    pub system_id: Option<String>,
    /// Maker of the machine.
    pub manufacturer: Option<String>,
    /// Model of the machine.
    pub model: Option<String>,
    /// Serial number of the machine.
    pub serial_number: Option<String>,
    /// Stock-keeping unit; on Dell machines the service tag.
    pub sku: Option<String>,
    /// UUID as SMBIOS has it.
    pub uuid: Option<String>,
    /// Version of the firmware that boots the machine.
    pub bios_version: Option<String>,
    /// Model of the BMC.
    pub bmc_model: Option<String>,
    /// Version of the BMC's firmware.
    pub bmc_version: Option<String>,
    /// Memory in GiB.
    pub memory_gib: Option<f64>,
    /// Processor sockets in use.
    pub processors: Option<u64>,
    /// Power state at this moment.
    pub power: PowerState,
    /// Drives, best first.
    pub slots: Vec<Slot>,
}

/// A BMC and the one system on it that is meant.
///
/// Every operation may be dropped at any point; see the crate's documentation.
pub struct Bmc {
    pub(crate) client: Client,
    redfish_version: Option<String>,
    /// Address of the system.
    pub(crate) system: String,
    manager: Option<String>,
    slots: Vec<Slot>,
}

impl std::fmt::Debug for Bmc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bmc").field("host", &self.client.host).field("system", &self.system).finish_non_exhaustive()
    }
}

impl Bmc {
    /// Reads the BMC at `base` (scheme, host and port count) and finds system, manager and drives by their links.
    ///
    /// `http` brings the caller's TLS settings and proxies; it is a builder and not a client because only so can this
    /// library forbid it to follow redirects, which would carry a session's token to other hosts.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::NoAnswer`], [`Error::Tls`], [`Error::NoCommonCipher`], [`Error::Auth`],
    /// [`Error::NoSystem`], [`Error::AmbiguousSystem`], [`Error::Protocol`], [`Error::Http`], [`Error::Timeout`].
    pub async fn connect(
        http: reqwest::ClientBuilder,
        base: Url,
        credentials: Credentials,
        options: Options,
        observer: Arc<dyn Observer>,
        phase: Phase,
    ) -> Result<Self, Error> {
        let http = http.redirect(reqwest::redirect::Policy::none()).build();
        let http = http.map_err(|error| Error::protocol(base.scheme(), format!("unusable HTTP client: {error}")))?;
        let mut client = Client::new(http, base, credentials, options, observer)?;
        let root = match client.service_root(phase, "/redfish/v1/").await {
            Err(Error::Http { status: 404, .. }) => client.service_root(phase, "/redfish/v1").await?,
            other => other?,
        };
        client.learn(Vendor::detect(&root, None), root.vendor.as_deref());
        let (path, system) = find_system(&client, phase, &root).await?;
        client.learn(Vendor::detect(&root, Some(&system)), system.manufacturer.as_deref().or(root.vendor.as_deref()));
        let managers = find_managers(&client, phase, &root, &system).await?;
        let (manager, slots) = find_slots(&client, phase, &system, &managers).await?;
        let manager = manager.or_else(|| managers.into_iter().next());
        Ok(Self { client, redfish_version: root.redfish_version, system: path, manager, slots })
    }

    /// Host and port, for messages.
    pub fn host(&self) -> &str {
        &self.client.host
    }

    /// Family of the BMC, detected or set.
    pub fn vendor(&self) -> Vendor {
        self.client.vendor
    }

    /// Label of the vendor in metrics: lower case, sanitised, `unknown` when nobody says.
    pub fn vendor_label(&self) -> &str {
        &self.client.label
    }

    /// Drives that take an image, best first: CD and DVD before USB sticks, then by id.
    ///
    /// # Errors
    /// [`Error::NoVirtualMedia`] when there is none.
    pub fn slots(&self) -> Result<&[Slot], Error> {
        if self.slots.is_empty() {
            return Err(Error::NoVirtualMedia { host: self.client.host.clone() });
        }
        Ok(&self.slots)
    }

    /// Reads what the BMC knows about the machine.
    ///
    /// # Errors
    /// Those of any request.
    pub async fn inventory(&self, phase: Phase) -> Result<Inventory, Error> {
        let system: System = self.client.get(phase, &self.system).await?.value;
        let manager: Manager = match &self.manager {
            Some(path) => self.client.get(phase, path).await?.value,
            None => Manager::default(),
        };
        Ok(Inventory {
            vendor: self.client.vendor,
            vendor_label: self.client.label.clone(),
            redfish_version: self.redfish_version.clone(),
            power: PowerState::read(system.power_state.as_deref()),
            system_id: system.id,
            manufacturer: system.manufacturer,
            model: system.model,
            serial_number: system.serial_number,
            sku: system.sku,
            uuid: system.uuid,
            bios_version: system.bios_version,
            bmc_model: manager.model,
            bmc_version: manager.firmware_version,
            memory_gib: system.memory.and_then(|memory| memory.total_gib),
            processors: system.processors.and_then(|processors| processors.count),
            slots: self.slots.clone(),
        })
    }

    /// Deletes the session, where there is one. Dropping a `Bmc` without this leaves the session to the BMC's own
    /// time-out. The `Bmc` stays usable: the next request opens a new session.
    ///
    /// # Errors
    /// Those of any request; the session counts as gone either way.
    pub async fn close(&self, phase: Phase) -> Result<(), Error> {
        self.client.log_out(phase).await
    }
}

/// Links of all members of a collection.
async fn members(client: &Client, phase: Phase, path: &str) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    let mut next = Some(path.to_owned());
    for _ in 0..PAGES {
        let Some(page) = next.take() else { break };
        let collection: Collection = client.get(phase, &page).await?.value;
        found.extend(collection.members.into_iter().flatten().filter_map(|link| link.address().map(str::to_owned)));
        next = collection.next;
    }
    Ok(found)
}

/// The system that is meant: the only one, or the one with the serial number, UUID or id that the options name.
async fn find_system(client: &Client, phase: Phase, root: &ServiceRoot) -> Result<(String, System), Error> {
    let systems = root.systems.as_ref().and_then(Link::address);
    let systems = systems.ok_or_else(|| Error::protocol("/redfish/v1/", "no link to Systems"))?;
    let paths = members(client, phase, systems).await?;
    let wanted = client.options.system.clone();
    let only = paths.len() == 1;
    if paths.len() > 1 && wanted.is_none() {
        return Err(Error::AmbiguousSystem { seen: paths });
    }
    let mut seen = Vec::new();
    for path in paths {
        let system: System = client.get(phase, &path).await?.value;
        let names = [&system.serial_number, &system.uuid, &system.id].map(|name| name.clone().unwrap_or_default());
        let matches = |name: &String| wanted.as_ref().is_some_and(|wanted| wanted.eq_ignore_ascii_case(name));
        if only || names.iter().any(matches) {
            let own = system.odata_id.clone().filter(|id| id.starts_with('/'));
            return Ok((own.unwrap_or(path), system));
        }
        seen.push(names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(" / "));
    }
    Err(Error::NoSystem { wanted, seen })
}

/// Managers of the system; all managers where it names none.
async fn find_managers(
    client: &Client,
    phase: Phase,
    root: &ServiceRoot,
    system: &System,
) -> Result<Vec<String>, Error> {
    let links = system.links.as_ref().and_then(|links| links.managed_by.as_ref()).into_iter().flatten();
    let managers: Vec<String> = links.filter_map(|link| link.address().map(str::to_owned)).collect();
    match root.managers.as_ref().and_then(Link::address) {
        Some(path) if managers.is_empty() => members(client, phase, path).await,
        _ => Ok(managers),
    }
}

/// Drives, and the manager that they belong to. The manager's collection comes first; the system's is taken when it
/// has more CD drives (iDRAC since 6.00.02 has two there and one in the old place).
async fn find_slots(
    client: &Client,
    phase: Phase,
    system: &System,
    managers: &[String],
) -> Result<(Option<String>, Vec<Slot>), Error> {
    let own = system.virtual_media.as_ref().and_then(Link::address);
    let cds = |slots: &[Slot]| slots.iter().filter(|slot| slot.is_cd).count();
    let mut best: (Option<String>, Vec<Slot>) = (None, Vec::new());
    let mut looked_at = Vec::new();
    for path in managers {
        let manager: Manager = client.get(phase, path).await?.value;
        tracing::debug!(host = %client.host, manager = manager.id.as_deref().unwrap_or_default(), "redfish manager");
        let Some(collection) = manager.virtual_media.as_ref().and_then(Link::address) else { continue };
        let slots = read_slots(client, phase, collection).await?;
        looked_at.push(collection.to_owned());
        if best.1.is_empty() || cds(&slots) > cds(&best.1) {
            best = (Some(path.clone()), slots);
        }
    }
    if let Some(collection) = own.filter(|own| cds(&best.1) < 2 && !looked_at.iter().any(|path| path == own)) {
        let slots = read_slots(client, phase, collection).await?;
        if best.1.is_empty() || cds(&slots) > cds(&best.1) {
            best.1 = slots;
        }
    }
    Ok(best)
}

/// Drives of one collection, best first. A link that leads nowhere is no drive.
async fn read_slots(client: &Client, phase: Phase, collection: &str) -> Result<Vec<Slot>, Error> {
    let paths = match members(client, phase, collection).await {
        Err(Error::Http { status: 404 | 405 | 501, .. }) => return Ok(Vec::new()),
        other => other?,
    };
    let mut slots = Vec::new();
    for path in paths {
        let media: VirtualMedia = match client.get(phase, &path).await {
            Err(Error::Http { status: 404, .. }) => continue,
            other => other?.value,
        };
        slots.extend(rate(client.vendor, path, &media));
    }
    order(&mut slots);
    Ok(slots)
}

/// A drive with its suitability; `None` when it takes no CD image.
fn rate(vendor: Vendor, path: String, media: &VirtualMedia) -> Option<Slot> {
    let id = media.id.clone().unwrap_or_else(|| path.rsplit('/').next().unwrap_or_default().to_owned());
    let types = media.media_types.clone().unwrap_or_default();
    let takes = |kind: &str| types.iter().any(|known| known.eq_ignore_ascii_case(kind));
    let named = types.is_empty() && ["cd", "dvd"].iter().any(|word| id.to_lowercase().contains(word));
    let mut score = 2 * u8::from(takes("CD")) + 2 * u8::from(takes("DVD")) + 2 * u8::from(named);
    let is_cd = score > 0;
    score += u8::from(takes("USBStick"));
    if vendor == Vendor::Xcc {
        // Only the EXT drives of an XCC take an address; RDOC and Remote ones are fed by its own console.
        if id.starts_with("RDOC") || id.starts_with("Remote") {
            return None;
        }
        score += if id.starts_with("EXT") { 8 } else { 0 };
    }
    (score > 0).then_some(Slot { id, path, is_cd, score })
}

/// Best first; equal ones by id, so that the order is the same every time.
fn order(slots: &mut [Slot]) {
    slots.sort_by(|one, two| two.score.cmp(&one.score).then_with(|| one.id.cmp(&two.id)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slots(vendor: Vendor, drives: &[(&str, &[&str])]) -> Vec<String> {
        let mut slots: Vec<Slot> = drives
            .iter()
            .filter_map(|(id, types)| {
                let media = VirtualMedia {
                    id: Some((*id).to_owned()),
                    media_types: Some(types.iter().map(|kind| (*kind).to_owned()).collect()),
                    ..VirtualMedia::default()
                };
                rate(vendor, format!("/{id}"), &media)
            })
            .collect();
        order(&mut slots);
        slots.into_iter().map(|slot| format!("{}{}", slot.id, if slot.is_cd { "" } else { " (no CD)" })).collect()
    }

    #[test]
    fn cd_drives_come_first_then_sticks_then_ids() {
        let drives: &[(&str, &[&str])] = &[
            ("4", &["Floppy"]),
            ("1", &["Floppy", "USBStick"]),
            ("3", &["CD", "DVD"]),
            ("2", &["CD", "DVD"]),
            ("0", &["CD"]),
        ];
        assert_eq!(slots(Vendor::Ilo, drives), ["2", "3", "0", "1 (no CD)"]);
    }

    #[test]
    fn a_drive_without_types_is_judged_by_its_name() {
        assert_eq!(slots(Vendor::Supermicro, &[("CD1", &[]), ("Floppy1", &[])]), ["CD1"]);
    }

    #[test]
    fn of_an_xcc_only_external_drives_count() {
        let drives: &[(&str, &[&str])] = &[
            ("Remote1", &["CD", "DVD"]),
            ("RDOC1", &["CD"]),
            ("EXT2", &["CD"]),
            ("EXT1", &["CD"]),
            ("Other", &["CD", "DVD"]),
        ];
        assert_eq!(slots(Vendor::Xcc, drives), ["EXT1", "EXT2", "Other"]);
    }

    proptest! {
        #[test]
        fn the_order_does_not_depend_on_the_order_of_members(
            mut drives in proptest::collection::vec(("[a-z]{1,3}", 0..5_u8), 0..8),
            seed in any::<prop::sample::Index>(),
        ) {
            drives.sort();
            drives.dedup_by(|one, two| one.0 == two.0);
            let make = |drives: &[(String, u8)]| {
                let mut slots: Vec<Slot> = drives
                    .iter()
                    .map(|(id, score)| Slot { id: id.clone(), path: id.clone(), is_cd: *score > 1, score: *score })
                    .collect();
                order(&mut slots);
                slots
            };
            let sorted = make(&drives);
            if !drives.is_empty() {
                let at = seed.index(drives.len());
                drives.rotate_left(at);
            }
            prop_assert_eq!(&make(&drives), &sorted);
            prop_assert!(sorted.is_sorted_by(|one, two| one.score > two.score || (one.score == two.score && one.id < two.id)));
        }
    }
}
