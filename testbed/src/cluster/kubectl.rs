//! kubectl with the administrator's rights, run inside the cluster's network namespace.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::layout::{Layout, shown};
use crate::command::{command, run, run_with_input};
use crate::error::{Error, Result};
use crate::process::MARK;
use crate::tools::Tool;

/// Runs kubectl against one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Kubectl {
    program: PathBuf,
    net: PathBuf,
    kubeconfig: PathBuf,
    state: PathBuf,
}

impl Kubectl {
    pub(crate) fn new(layout: &Layout) -> Result<Self> {
        let program = Tool::Kube.program("kubectl")?;
        Ok(Self {
            program,
            net: layout.control_net(),
            kubeconfig: layout.kubeconfig("admin"),
            state: layout.state.clone(),
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut kubectl = command("nsenter", &[format!("--net={}", shown(&self.net))]);
        kubectl.arg(&self.program).arg(format!("--kubeconfig={}", shown(&self.kubeconfig))).args(args);
        // A caller that crashes leaves it waiting; `down` must find it.
        kubectl.env(MARK, &self.state);
        kubectl
    }

    /// Runs it and returns what it printed.
    pub(crate) fn run(&self, args: &[&str]) -> Result<String> {
        run(&mut self.command(args))
    }

    /// Runs it with a manifest on its standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Result<String> {
        run_with_input(&mut self.command(args), input)
    }

    /// Runs it with `--output=json` and parses the answer.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[args, &["--output=json"]].concat())?;
        let what = || format!("the answer of kubectl {}", args.join(" "));
        serde_json::from_str(&text).map_err(|source| Error::Json { what: what(), source })
    }
}
