//! A registry without access control: `serve DIRECTORY [ADDRESS]`. Prints the address it listens on.

use std::error::Error;
use std::sync::Arc;

use oci_registry::server::{Anonymous, Registry, Unobserved, router};
use oci_registry::storage::Limits;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().ok_or("usage: serve DIRECTORY [ADDRESS]")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let registry = Registry::open(root, Limits::default(), Arc::new(Anonymous), Arc::new(Unobserved)).await?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, router(Arc::new(registry))).await?)
}
