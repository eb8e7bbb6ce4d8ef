//! The program `quorate`; all of it is in the library.

/// Also RocksDB's: a command costs some dozens of small allocations, on every node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    quorate_cli::main()
}
