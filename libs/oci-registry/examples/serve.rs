//! A registry without access control: `serve [--single-thread] [--collect] DIRECTORY [ADDRESS]`. Prints the address it
//! listens on. With `--collect` it takes out what nothing needs, however young, prints what that was, and ends. With
//! `--single-thread` all work on files is done by one thread, in the order that it is asked for.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use oci_registry::server::{Anonymous, Options, Registry, router};
use oci_registry::storage::maintenance::CollectOptions;

fn main() -> Result<(), Box<dyn Error>> {
    let (flags, mut rest): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let mut builder = if flags.iter().any(|flag| flag == "--single-thread") {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.max_blocking_threads(1).thread_keep_alive(Duration::from_secs(3600));
        builder
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    if rest.is_empty() {
        return Err("usage: serve [--single-thread] [--collect] DIRECTORY [ADDRESS]".into());
    }
    let root = rest.remove(0);
    let address = rest.pop().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let collect = flags.iter().any(|flag| flag == "--collect");
    builder.enable_all().build()?.block_on(run(root, address, collect))
}

async fn run(root: String, address: String, collect: bool) -> Result<(), Box<dyn Error>> {
    let registry = Registry::open(root, Options::new(Arc::new(Anonymous))).await?;
    if collect {
        let report = registry.storage().collect(CollectOptions::default()).await?;
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, router(Arc::new(registry))).await?)
}
