//! The command `stackroom`.

mod admin;
mod connect;

use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// A request is hundreds of small allocations: over the C library's this saves a fifth of a lookup, at the same memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A home for container images: a library for Apptainer and Singularity, and an OCI registry.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the whole library in one process, on an embedded store.
    Serve {
        /// Where to listen.
        #[arg(long, env = "STACKROOM_LISTEN", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// The folder that holds everything.
        #[arg(long, env = "STACKROOM_DATA", default_value = "data")]
        data: PathBuf,
        /// Another address that only takes the bytes of blobs, to which `STACKROOM_INGEST_URL` sends registry clients.
        #[arg(long, env = "STACKROOM_INGEST_LISTEN")]
        ingest_listen: Option<SocketAddr>,
        /// How clients reach the server; by default http:// and the listening address.
        #[arg(long, env = "STACKROOM_PUBLIC_URL")]
        public_url: Option<String>,
    },
    /// Take the bytes of blobs for a library on functions, which take no large ones: the host of `STACKROOM_INGEST_URL`.
    ///
    /// Reads the same environment as the functions do.
    Ingest {
        /// Where to listen. Put what speaks TLS in front of it.
        #[arg(long, env = "STACKROOM_LISTEN", default_value = "127.0.0.1:8081")]
        listen: SocketAddr,
    },
    /// Administer a running library: users, tokens, quotas, sweeping.
    Admin(admin::Admin),
    /// Write a library into the list of remotes of apptainer or singularity, and make it the active one.
    Connect(connect::Connect),
}

fn main() -> ExitCode {
    shared::telemetry::init();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stackroom: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    match cli.command {
        Command::Serve { listen, data, ingest_listen, public_url } => {
            let settings = stackroom::serve::Settings { listen, data, ingest_listen, public_url };
            runtime.block_on(stackroom::serve::serve(settings))
        }
        Command::Ingest { listen } => runtime.block_on(stackroom::serve::ingest(listen)),
        Command::Admin(admin) => runtime.block_on(admin.run()),
        Command::Connect(connect) => connect.run(),
    }
}
