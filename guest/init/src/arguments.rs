//! The kernel's command line.

use std::net::IpAddr;
use std::time::Duration;

use crate::end::How;

/// Time between SIGTERM and SIGKILL when nothing is said.
const GRACE: Duration = Duration::from_secs(10);

/// What the words ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) modules: Vec<String>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) name_servers: Vec<IpAddr>,
    pub(crate) root: Option<Root>,
    pub(crate) run: Vec<String>,
    pub(crate) grace: Duration,
    pub(crate) end: How,
}

/// An address of `eth0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
    pub(crate) gateway: Option<IpAddr>,
}

/// The root disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) device: String,
    pub(crate) kind: String,
    pub(crate) writable: bool,
    pub(crate) init: String,
}

/// A word that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word}: {problem}")]
pub(crate) struct ArgumentError {
    word: String,
    problem: &'static str,
}

impl Arguments {
    /// Reads the line. Words of others are passed over, unknown ones of our own are errors.
    pub(crate) fn parse(line: &str) -> Result<Self, ArgumentError> {
        let mut arguments = Self {
            modules: Vec::new(),
            addresses: Vec::new(),
            name_servers: Vec::new(),
            root: None,
            run: Vec::new(),
            grace: GRACE,
            end: How::of_line(line),
        };
        let (mut device, mut kind, mut init) = (None, "ext4".to_owned(), "/sbin/init".to_owned());
        let mut writable = false;
        for word in words(line) {
            let wrong = |problem| ArgumentError { word: word.clone(), problem };
            let Some((name, value)) = word.split_once('=') else {
                match word.as_str() {
                    "rw" => writable = true,
                    "ro" => writable = false,
                    _ => {}
                }
                continue;
            };
            let list = || value.split(',').filter(|one| !one.is_empty());
            match name {
                "cairn.modules" => arguments.modules.extend(list().map(str::to_owned)),
                "cairn.ip" => arguments.addresses.push(Address::parse(value).map_err(wrong)?),
                "cairn.dns" => {
                    for one in list() {
                        arguments.name_servers.push(one.parse().map_err(|_| wrong("not an IP address"))?);
                    }
                }
                "cairn.run" => arguments.run = value.split_whitespace().map(unescape).collect(),
                "cairn.grace" => {
                    let seconds = value.parse().map_err(|_| wrong("not a number of seconds"))?;
                    arguments.grace = Duration::from_secs(seconds);
                }
                "cairn.end" if !matches!(value, "poweroff" | "reboot") => return Err(wrong("poweroff or reboot")),
                "cairn.end" => {}
                "root" if !value.starts_with("/dev/") => return Err(wrong("a device below /dev is needed")),
                "root" => device = Some(value.to_owned()),
                "rootfstype" => kind = value.to_owned(),
                "init" => init = value.to_owned(),
                name if name.starts_with("cairn.") => return Err(wrong("not known")),
                _ => {}
            }
        }
        arguments.root = device.map(|device| Root { device, kind, writable, init });
        Ok(arguments)
    }
}

impl Address {
    fn parse(value: &str) -> Result<Self, &'static str> {
        let (address, gateway) = match value.split_once(',') {
            Some((address, gateway)) => (address, Some(gateway.parse().map_err(|_| "the gateway is no IP address")?)),
            None => (value, None),
        };
        let (address, prefix) = address.split_once('/').ok_or("ADDRESS/PREFIX[,GATEWAY] is needed")?;
        let address: IpAddr = address.parse().map_err(|_| "not an IP address")?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= longest).ok_or("the prefix is too long")?;
        if gateway.is_some_and(|gateway: IpAddr| gateway.is_ipv4() != address.is_ipv4()) {
            return Err("address and gateway are of two families");
        }
        Ok(Self { address, prefix, gateway })
    }

    /// Whether the gateway lies in the address's own network, so that the kernel knows how to reach it.
    pub(crate) fn has_near_gateway(&self) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        let differing = |gateway| (bits(self.address) ^ bits(gateway)).leading_zeros();
        self.gateway.is_some_and(|gateway| differing(gateway) >= u32::from(self.prefix))
    }
}

/// Words of the line; double quotes keep spaces together, as in the kernel's own reading.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in line.trim().chars() {
        match letter {
            '"' => quoted = !quoted,
            letter if letter.is_whitespace() && !quoted => words.push(String::new()),
            letter => words.last_mut().into_iter().for_each(|word| word.push(letter)),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// `%` and two hexadecimal digits are a byte; anything else is itself.
fn unescape(word: &str) -> String {
    let bytes = word.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let byte = (bytes[at] == b'%').then(|| word.get(at + 1..at + 3)).flatten();
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_with_everything() {
        let line = "console=ttyS0 reboot=k cairn.modules=virtio_net,virtio_blk root=/dev/vda rw rootfstype=squashfs \
                    cairn.ip=10.0.0.2/24,10.0.0.1 cairn.ip=fd00::2/64 cairn.dns=10.0.0.1,fd00::1 init=/bin/init \
                    cairn.run=\"/bin/echo a%20b 100%25 %zz\" cairn.grace=3 cairn.end=reboot\n";
        let arguments = Arguments::parse(line).unwrap();
        assert_eq!(arguments.modules, ["virtio_net", "virtio_blk"]);
        assert_eq!(arguments.run, ["/bin/echo", "a b", "100%", "%zz"]);
        assert_eq!((arguments.grace, arguments.end), (Duration::from_secs(3), How::Reboot));
        let root = arguments.root.unwrap();
        assert_eq!(
            (root.device.as_str(), root.kind.as_str(), root.init.as_str()),
            ("/dev/vda", "squashfs", "/bin/init")
        );
        assert!(root.writable);
        assert_eq!(arguments.name_servers.len(), 2);
        assert_eq!(arguments.addresses.len(), 2);
        assert_eq!(arguments.addresses[0].prefix, 24);
    }

    #[test]
    fn a_line_with_nothing() {
        let arguments = Arguments::parse("quiet ro").unwrap();
        assert_eq!((arguments.root, arguments.end, arguments.grace), (None, How::PowerOff, GRACE));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (word, problem) in [
            ("cairn.ip=10.0.0.2", "ADDRESS/PREFIX[,GATEWAY] is needed"),
            ("cairn.ip=10.0.0.2/33", "the prefix is too long"),
            ("cairn.ip=10.0.0.2/24,fd00::1", "address and gateway are of two families"),
            ("cairn.dns=example", "not an IP address"),
            ("cairn.end=halt", "poweroff or reboot"),
            ("cairn.color=blue", "not known"),
            ("root=LABEL=x", "a device below /dev is needed"),
        ] {
            assert_eq!(Arguments::parse(word).unwrap_err().to_string(), format!("{word}: {problem}"));
        }
    }

    #[test]
    fn a_gateway_is_near_or_far() {
        let near = |text| Address::parse(text).unwrap().has_near_gateway();
        assert!(near("10.0.0.2/24,10.0.0.1") && near("fd00::2/64,fd00::1") && near("10.0.0.2/0,192.0.2.1"));
        assert!(!near("10.0.0.2/32,169.254.0.1") && !near("fd00::2/128,fe80::1") && !near("10.0.0.2/24"));
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in ".{0,120}") {
            let _ = Arguments::parse(&line);
        }
    }
}
