//! The words of a command are those that the program on the other side gets, whatever bytes are in them.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Command as Process;

use proptest::prelude::*;
use reach::ssh::Command;

/// What `sh -c LINE` hands to a program that prints each of its arguments, ended by NUL.
fn through_shell(words: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let words: Vec<OsString> = words.iter().cloned().map(OsString::from_vec).collect();
    let line = Command::new("printf").arg(r"%s\0").args(&words).to_line("root").unwrap();
    let output = Process::new("/bin/sh").arg("-c").arg(std::ffi::OsStr::from_bytes(&line)).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut parts: Vec<Vec<u8>> = output.stdout.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    assert_eq!(parts.pop(), Some(Vec::new()));
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_arrive_as_they_are(words in prop::collection::vec(prop::collection::vec(1u8..=255, 0..40), 1..6)) {
        prop_assert_eq!(through_shell(&words), words);
    }

    #[test]
    fn what_means_something_to_a_shell_means_nothing(words in prop::collection::vec(r#"[ '"\\$`*?!#~;&|<>(){}\[\]\n\t=%-]{0,12}"#, 1..6)) {
        let words: Vec<Vec<u8>> = words.into_iter().map(String::into_bytes).collect();
        prop_assert_eq!(through_shell(&words), words);
    }
}
