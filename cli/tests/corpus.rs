//! The inputs that fuzzing has kept, run once more: what was mended stays mended.

#[path = "../../tests/fuzz/src/cli/mod.rs"]
mod cli;
#[path = "../../tests/fuzz/src/corpus.rs"]
mod corpus;

#[test]
fn no_command_line_ends_without_a_word() {
    corpus::replay("arguments", cli::arguments::seeds(), cli::arguments::run);
}

#[test]
fn no_configuration_ends_without_a_word() {
    corpus::replay("config", cli::config::seeds(), cli::config::run);
}
