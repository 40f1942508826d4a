//! The end-to-end test binary.

fn main() -> std::process::ExitCode {
    tests::main()
}
