//! Settings: defaults, then the file, then the environment, then flags; each beats the one before it. They are put
//! together once, here, and do not change afterwards. (clap knows the environment, so what it hands over is already
//! flag-or-environment.)

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::arguments::Global;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Form;
use crate::quantity;

/// Where `muster up` listens, and where every other verb but `run` looks for a cluster when it is told of none.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:7077";
/// Room for every key and a lot of comments. A larger file is not a configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// When to use color.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// The configuration file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) schedulers: Option<Vec<String>>,
    pub(crate) output: Option<Form>,
    pub(crate) color: Option<Color>,
    #[serde(deserialize_with = "duration")]
    pub(crate) call_timeout: Option<Duration>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) up: UpSection,
    pub(crate) scheduler: SchedulerSection,
    pub(crate) executor: ExecutorSection,
}

/// `[up]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UpSection {
    pub(crate) listen: Option<SocketAddr>,
}

/// `[scheduler]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SchedulerSection {
    pub(crate) state: Option<String>,
    pub(crate) cluster: Option<String>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) advertise: Option<String>,
    #[serde(deserialize_with = "duration")]
    pub(crate) session_ttl: Option<Duration>,
    #[serde(deserialize_with = "duration")]
    pub(crate) lost_after: Option<Duration>,
    #[serde(deserialize_with = "memory")]
    pub(crate) store_quota: Option<u64>,
    /// Unfinished jobs.
    pub(crate) max_jobs: Option<usize>,
    /// Their tasks.
    pub(crate) max_tasks: Option<u64>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) callback_secret_file: Option<PathBuf>,
    pub(crate) allow_remote: Option<bool>,
}

/// `[executor]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExecutorSection {
    pub(crate) id: Option<String>,
    pub(crate) mode: Option<Mode>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) advertise: Option<String>,
    #[serde(deserialize_with = "cpus")]
    pub(crate) cpus: Option<u32>,
    #[serde(deserialize_with = "memory")]
    pub(crate) memory: Option<u64>,
    pub(crate) resources: BTreeMap<String, u32>,
    #[serde(deserialize_with = "devices")]
    pub(crate) devices: muster_executor::DeviceNames,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) allow_remote: Option<bool>,
}

/// How work comes to an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Schedulers send it
    Push,
    /// The executor asks for it; needs no connection from the schedulers
    Pull,
}

/// Either what people write (`"30s"`) or a plain number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Whole(u64),
    Fraction(f64),
}

impl Written {
    fn read<'de, D: Deserializer<'de>, T>(
        deserializer: D,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, D::Error> {
        let text = match Self::deserialize(deserializer)? {
            Self::Text(text) => text,
            Self::Whole(number) => number.to_string(),
            Self::Fraction(number) => number.to_string(),
        };
        parse(&text).map(Some).map_err(serde::de::Error::custom)
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Written::read(deserializer, quantity::duration)
}

fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Written::read(deserializer, quantity::memory)
}

fn cpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Written::read(deserializer, quantity::cpus)
}

/// Devices by resource: their names, which may be numbers.
fn devices<'de, D: Deserializer<'de>>(deserializer: D) -> Result<muster_executor::DeviceNames, D::Error> {
    let written = BTreeMap::<String, Vec<Written>>::deserialize(deserializer)?;
    let name = |written| match written {
        Written::Text(text) => text,
        Written::Whole(number) => number.to_string(),
        Written::Fraction(number) => number.to_string(),
    };
    Ok(written.into_iter().map(|(resource, names)| (resource, names.into_iter().map(name).collect())).collect())
}

impl File {
    /// Reads the file that was named, or the one at its usual place if there is one.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self, Failure> {
        let usual = || home_folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("muster/config.toml"));
        let path = match named {
            Some(path) => path.to_owned(),
            None => match usual() {
                Some(path) if path.exists() => path,
                _ => return Ok(Self::default()),
            },
        };
        let unreadable = |why: String| {
            Failure::usage(format!("the configuration file {} cannot be read: {why}", path.display()))
                .help("name another file with --config or MUSTER_CONFIG")
        };
        let size = std::fs::metadata(&path).map_err(|error| unreadable(error.to_string()))?.len();
        if size > FILE_BYTES_MAX {
            return Err(unreadable(format!("it has {size} bytes, more than FILE_BYTES_MAX = {FILE_BYTES_MAX}")));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
        Self::parse(&text, &path)
    }

    /// Reads the text of the file at `path`.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        toml::from_str(text).map_err(|error| {
            let message =
                format!("the configuration file {} is wrong: {}", path.display(), error.to_string().trim_end());
            Failure::usage(message).help("docs/cli.md lists the keys; correct this one or remove it")
        })
    }
}

/// `$variable`, or `folder` in the home directory.
fn home_folder(variable: &str, folder: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(variable).filter(|path| path.is_absolute()).or_else(|| set("HOME").map(|home| home.join(folder)))
}

/// Everything that was set, put together.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// `None`: no cluster is configured.
    pub(crate) schedulers: Option<Vec<String>>,
    pub(crate) form: Form,
    pub(crate) color: Color,
    pub(crate) call_timeout: Option<Duration>,
    pub(crate) quiet: bool,
    pub(crate) verbose: u8,
    /// The rest of the file, for the verbs that have a section in it.
    pub(crate) file: File,
}

impl Settings {
    /// Puts flags and environment over the file.
    pub(crate) fn over(file: File, global: &Global) -> Self {
        let named = global.schedulers.clone().map(without_empty).filter(|list| !list.is_empty());
        let in_file = file.schedulers.clone().map(without_empty).filter(|list| !list.is_empty());
        Self {
            schedulers: named.or(in_file),
            form: global.output.or(file.output).unwrap_or_default(),
            color: global.color.or(file.color).unwrap_or_default(),
            call_timeout: global.call_timeout.or(file.call_timeout),
            quiet: global.quiet,
            verbose: global.verbose,
            file,
        }
    }

    /// Where to look for the cluster.
    pub(crate) fn schedulers_or_default(&self) -> Vec<String> {
        self.schedulers.clone().unwrap_or_else(|| vec![DEFAULT_ADDRESS.to_owned()])
    }

    /// The data directory: the one named, else the file's, else the usual place.
    pub(crate) fn data_dir(&self, named: Option<PathBuf>) -> Result<PathBuf, Failure> {
        let usual = || home_folder("XDG_DATA_HOME", ".local/share").map(|folder| folder.join("muster"));
        named.or_else(|| self.file.data_dir.clone()).or_else(usual).ok_or_else(|| {
            Failure::new(Exit::Usage, "there is no home directory to keep data in (HOME is not set)")
                .help("name a directory with --data-dir or MUSTER_DATA_DIR")
        })
    }
}

fn without_empty(list: Vec<String>) -> Vec<String> {
    list.into_iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, String> {
        File::parse(text, Path::new("/etc/muster.toml")).map_err(|failure| failure.message)
    }

    #[test]
    fn every_key_of_the_file_is_read() {
        let file = parse(
            r#"
            schedulers = ["a:1", "b:2"]
            output = "json"
            color = "never"
            call_timeout = "1m30s"
            data_dir = "/var/lib/muster"
            [up]
            listen = "127.0.0.1:9000"
            [scheduler]
            state = "etcd://127.0.0.1:2379"
            cluster = "main"
            listen = "127.0.0.1:7077"
            advertise = "node-1:7077"
            session_ttl = 10
            lost_after = "30s"
            store_quota = "8GiB"
            callback_secret_file = "/etc/muster/callbacks"
            metrics = "127.0.0.1:9464"
            allow_remote = true
            [executor]
            id = "node-1"
            mode = "pull"
            listen = "127.0.0.1:0"
            advertise = "node-1:7100"
            cpus = 3.5
            memory = "4GiB"
            metrics = "127.0.0.1:9465"
            allow_remote = false
            resources = { seat = 2 }
            devices = { gpu = [0, "3"] }
            labels = { zone = "a" }
            "#,
        )
        .expect("every key is known");
        assert_eq!(file.call_timeout, Some(Duration::from_secs(90)));
        assert_eq!(file.scheduler.session_ttl, Some(Duration::from_secs(10)));
        assert_eq!((file.executor.cpus, file.executor.memory), (Some(3500), Some(4 << 30)));
        assert_eq!(file.executor.mode, Some(Mode::Pull));
        assert_eq!(
            (file.executor.resources["seat"], &*file.executor.devices["gpu"]),
            (2, &["0", "3"].map(str::to_owned)[..])
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file_and_its_line() {
        for (text, key) in [("outptu = 'json'", "outptu"), ("[executor]\ncpu = 1", "cpu"), ("[servers]", "servers")] {
            let said = parse(text).expect_err("unknown");
            assert!(said.contains("/etc/muster.toml") && said.contains(key) && said.contains("line"), "{said}");
        }
    }

    #[test]
    fn a_wrong_value_is_explained() {
        let said = parse("call_timeout = 'soon'").expect_err("not a duration");
        assert!(said.contains("'soon' is not a duration"), "{said}");
        let said = parse("output = 'xml'").expect_err("not a form");
        assert!(said.contains("xml") && said.contains("jsonl"), "{said}");
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_the_defaults() {
        let defaults = Settings::over(File::default(), &Global::default());
        assert_eq!((defaults.schedulers.clone(), defaults.form), (None, Form::Table));
        assert_eq!(defaults.schedulers_or_default(), [DEFAULT_ADDRESS]);
        let file = parse("schedulers = ['a:1']\noutput = 'json'\ncall_timeout = 5").expect("good");
        let settings = Settings::over(file.clone(), &Global::default());
        assert_eq!((settings.schedulers, settings.form), (Some(vec!["a:1".to_owned()]), Form::Json));
        let global = Global {
            schedulers: Some(vec!["b:2".to_owned(), " c:3".to_owned()]),
            output: Some(Form::Name),
            ..Global::default()
        };
        let settings = Settings::over(file, &global);
        assert_eq!(settings.schedulers, Some(vec!["b:2".to_owned(), "c:3".to_owned()]));
        assert_eq!((settings.form, settings.call_timeout), (Form::Name, Some(Duration::from_secs(5))));
    }

    #[test]
    fn an_empty_list_of_schedulers_is_none_at_all() {
        let global = Global { schedulers: Some(vec![String::new()]), ..Global::default() };
        assert_eq!(Settings::over(File::default(), &global).schedulers, None);
    }
}
