//! `muster namespaces`

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use muster_proto::v1;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::namespace::Namespace;
use crate::quantity;

/// List the namespaces that have jobs or rules: what they have of the cluster, and what was set for them
#[derive(Debug, Args)]
pub(crate) struct Namespaces {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Set(Set),
}

/// Set how much a namespace counts beside others, and what it may have at the same time
///
/// What is not said stays as it is. While several namespaces want more than there is, each gets its part by weight, of
/// the resource of which it needs most; what one of them does not want is the others'. Limits hold in the whole
/// cluster; while several schedulers have jobs of the namespace, each goes by its part of them.
#[derive(Debug, Args)]
struct Set {
    /// The namespace
    #[arg(value_name = "NAMESPACE")]
    name: String,
    /// With twice the weight of another it gets twice as much; 1 to 10000 [default: 100]
    #[arg(long, value_name = "NUMBER")]
    weight: Option<u32>,
    /// Tasks that may run at the same time; none: any number
    #[arg(long, value_name = "NUMBER", value_parser = count)]
    max_running: Option<Limit<u32>>,
    /// Jobs that may be there and not over; more are refused; none: any number
    #[arg(long, value_name = "NUMBER", value_parser = count)]
    max_jobs: Option<Limit<u32>>,
    /// Cores that its tasks may have at the same time, for instance 64 or 0.5; none: any number
    #[arg(long, value_name = "CORES", value_parser = cpus)]
    max_cpus: Option<Limit<u64>>,
    /// Memory that its tasks may have at the same time, for instance 512GiB; none: all there is
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    max_memory: Option<Limit<u64>>,
    /// Of a named resource, for instance gpu=8, or gpu=none; may be repeated
    #[arg(long, value_name = "NAME=NUMBER", value_parser = named)]
    max_resource: Vec<(String, Limit<u64>)>,
    /// Forget everything that was set before
    #[arg(long)]
    reset: bool,
}

/// What a limit is to be.
#[derive(Debug, Clone, Copy)]
enum Limit<T> {
    None,
    Some(T),
}

impl<T> Limit<T> {
    fn into_option(self) -> Option<T> {
        match self {
            Self::None => None,
            Self::Some(limit) => Some(limit),
        }
    }
}

fn limit<T>(text: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Limit<T>, String> {
    if text == "none" { Ok(Limit::None) } else { read(text).map(Limit::Some) }
}

fn count(text: &str) -> Result<Limit<u32>, String> {
    limit(text, |text| text.parse().map_err(|_| format!("'{text}' is neither a number nor none")))
}

fn cpus(text: &str) -> Result<Limit<u64>, String> {
    limit(text, |text| quantity::cpus(text).map(u64::from))
}

fn memory(text: &str) -> Result<Limit<u64>, String> {
    limit(text, quantity::memory)
}

fn named(text: &str) -> Result<(String, Limit<u64>), String> {
    let wrong = || format!("'{text}' is not NAME=NUMBER, as in gpu=8");
    let (name, amount) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    let amount = limit(amount, |amount| amount.parse().map_err(|_| wrong()))?;
    Ok((name.to_owned(), amount))
}

impl Set {
    /// What was set before, with this on top.
    fn over(self, known: v1::NamespaceRules) -> v1::NamespaceRules {
        let mut rules = if self.reset { v1::NamespaceRules::default() } else { known };
        let mut most = rules.max_in_use.take().unwrap_or_default();
        rules.weight = self.weight.or(rules.weight);
        let set = |known: &mut Option<u64>, limit: Option<Limit<u64>>| {
            if let Some(limit) = limit {
                *known = limit.into_option();
            }
        };
        set(&mut most.cpu_milli, self.max_cpus);
        set(&mut most.memory_bytes, self.max_memory);
        for (known, limit) in [(&mut rules.max_running, self.max_running), (&mut rules.max_jobs, self.max_jobs)] {
            if let Some(limit) = limit {
                *known = limit.into_option();
            }
        }
        for (name, limit) in self.max_resource {
            match limit {
                Limit::None => drop(most.named.remove(&name)),
                Limit::Some(limit) => drop(most.named.insert(name, limit)),
            }
        }
        rules.max_in_use =
            Some(most).filter(|most| *most != v1::Amount { named: BTreeMap::new(), ..Default::default() });
        rules
    }
}

impl Namespaces {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let mut namespaces = client.list_namespaces().await?;
        if let Some(Verb::Set(set)) = self.verb {
            let name = set.name.clone();
            let known = namespaces.into_iter().find(|view| view.namespace == name).and_then(|view| view.rules);
            client.set_namespace(&name, set.over(known.unwrap_or_default())).await?;
            namespaces = client.list_namespaces().await?;
            namespaces.retain(|view| view.namespace == name);
        }
        let listed: Vec<Namespace> = namespaces.into_iter().map(Namespace::from).collect();
        context.output.list(&listed)?;
        Ok(Exit::Success)
    }
}
