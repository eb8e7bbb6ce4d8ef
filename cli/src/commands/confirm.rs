//! Asking before something is destroyed.

use std::io::{BufRead, IsTerminal, Write};

use crate::exit::{Exit, Failure};

/// Asks on a terminal; without one, `--yes` must have been given. `what` completes "This …".
pub fn confirm(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(needs_yes(what));
    }
    write!(stderr, "This {what}. Go on? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    if is_yes(&answer) {
        return Ok(());
    }
    Err(Failure::error("cancelled", "nothing was done"))
}

fn needs_yes(what: &str) -> Failure {
    Failure::new(
        Exit::Invalid,
        "confirmation_required",
        format!("this {what}; there is no terminal to ask on, give --yes to do it"),
    )
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for answer in ["y\n", "Y", " yes\r\n"] {
            assert!(is_yes(answer), "{answer:?}");
        }
        for answer in ["", "\n", "n", "yep", "no"] {
            assert!(!is_yes(answer), "{answer:?}");
        }
    }

    #[test]
    fn without_a_terminal_the_flag_is_asked_for() {
        let failure = needs_yes("revokes lease k");
        assert_eq!(failure.exit(), Exit::Invalid);
        assert_eq!(
            failure.message(),
            "this revokes lease k; there is no terminal to ask on, give --yes to do it"
        );
        assert_eq!(confirm(true, "revokes lease k"), Ok(()));
    }
}
