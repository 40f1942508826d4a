//! The power button, which QEMU presses for `system_powerdown`: a key of an input device (linux/input.h). It is there once
//! the modules `button` and `evdev` are loaded.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

// struct input_event on 64 bits: time in 16 bytes, type, code, value.
const EVENT: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// The input devices.
pub(crate) fn devices() -> Vec<File> {
    let flags = (OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32;
    let entries = std::fs::read_dir("/dev/input").into_iter().flatten().flatten();
    let events = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("event"));
    events.filter_map(|entry| File::options().read(true).custom_flags(flags).open(entry.path()).ok()).collect()
}

/// Whether what a device has to say holds a press of the button.
pub(crate) fn is_pressed(device: &mut File) -> bool {
    let mut events = [0; 64 * EVENT];
    let length = device.read(&mut events).unwrap_or_default();
    events[..length].chunks_exact(EVENT).any(is_press)
}

fn is_press(event: &[u8]) -> bool {
    let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    half(16) == EV_KEY && half(18) == KEY_POWER && event[20] == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_press_of_the_button_counts() {
        let event = |kind: u16, code: u16, value: u8| {
            let mut event = vec![0; 16];
            event.extend(kind.to_ne_bytes());
            event.extend(code.to_ne_bytes());
            event.extend([value, 0, 0, 0]);
            event
        };
        assert!(is_press(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!is_press(&event(EV_KEY, KEY_POWER, 0)) && !is_press(&event(EV_KEY, 30, 1)));
        assert!(!is_press(&event(0, KEY_POWER, 1)));
    }
}
