//! What every command needs: settings, the way to print answers, the way to talk beside them, and the cluster.

use std::io::{IsTerminal as _, Write as _};

use jiff::Timestamp;
use muster_client::{Client, Options};

use crate::configuration::{Color, Settings};
use crate::failure::Failure;
use crate::output::Output;

/// Made once by `main`.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) output: Output,
    pub(crate) console: Console,
}

/// Standard error: what is said to people beside the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    quiet: bool,
    pub(crate) color: bool,
    pub(crate) terminal: bool,
}

impl Context {
    pub(crate) fn new(settings: Settings) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let console = Console { quiet: settings.quiet, color: colored(settings.color, terminal), terminal };
        let color = colored(settings.color, std::io::stdout().is_terminal());
        let output = Output { form: settings.form, color, now: Timestamp::now() };
        Self { settings, output, console }
    }

    /// The printing of answers, as of now: a command that runs for hours must not show the ages of its beginning.
    pub(crate) fn output_now(&self) -> Output {
        Output { now: Timestamp::now(), ..self.output }
    }

    pub(crate) fn client_options(&self) -> Options {
        let mut options = Options::default();
        if let Some(call_timeout) = self.settings.call_timeout {
            options.call_timeout = call_timeout;
            options.try_timeout = options.try_timeout.min(call_timeout);
            options.first_contact_timeout = options.first_contact_timeout.min(call_timeout);
        }
        options
    }

    /// A client of the cluster that is configured, or of the one at the default address.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.settings.schedulers_or_default(), self.client_options()).await?)
    }
}

/// Whether to use color. A flag or a setting beats `NO_COLOR` (no-color.org), which beats the terminal.
fn colored(color: Color, terminal: bool) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
            terminal && !no_color && !dumb
        }
    }
}

impl Console {
    /// Whether remarks are unwanted.
    pub(crate) fn is_quiet(self) -> bool {
        self.quiet
    }

    /// Says something, unless nothing should be said.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            self.always(text);
        }
    }

    /// Says something in any case. A closed standard error is no reason to fail.
    pub(crate) fn always(self, text: &str) {
        let _closed = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Says why a command failed.
    pub(crate) fn failure(self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        let paint = |code: &str, text: &str| {
            if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
        };
        self.always(&format!("{}: {}", paint("1;31", "error"), failure.message));
        if let Some(help) = &failure.help {
            self.always(&format!("{}: {help}", paint("1;36", "help")));
        }
    }
}
