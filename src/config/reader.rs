//! Reads settings. A flag overrides a variable, and a variable overrides the default. Collects all errors.

use std::ffi::OsString;
use std::fmt;

use super::parse;
use super::quoted::quoted;
use super::settings::{Flags, Kind, Setting};

/// Source of a setting's value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Source {
    Flag,
    Environment,
    Default,
}

/// The error of an invalid setting: its name, what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError(String);

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SettingError {
    /// The error for a HOST that cannot be part of a URL.
    pub(crate) fn of_host(problem: impl fmt::Display) -> Self {
        Self::new(&super::settings::HOST, problem)
    }

    pub(super) fn new(setting: &Setting, problem: impl fmt::Display) -> Self {
        Self::named(setting, setting.name, problem)
    }

    /// `variable` is the name that was read, which can be an alias.
    fn named(setting: &Setting, variable: &str, problem: impl fmt::Display) -> Self {
        match setting.flag() {
            Some(flag) => Self(format!("{variable} (--{flag}): {problem}")),
            None => Self(format!("{variable}: {problem}")),
        }
    }
}

/// A line of `--print-config`.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) source: Source,
}

/// The value of one setting before it is parsed.
struct Said {
    /// The trimmed text. `None` if the setting is not set.
    text: Option<String>,
    source: Source,
    variable: &'static str,
}

pub(super) struct SettingsReader<'a> {
    flags: &'a Flags,
    env: &'a dyn Fn(&str) -> Option<OsString>,
    pub(super) refusals: Vec<SettingError>,
    pub(super) shown: Vec<Shown>,
    /// Settings whose variable Kubernetes has set for a Service, each with its error. These settings count as unset.
    pub(super) of_services: Vec<(&'static Setting, String)>,
}

impl<'a> SettingsReader<'a> {
    pub(super) fn new(flags: &'a Flags, env: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self { flags, env, refusals: Vec::new(), shown: Vec::new(), of_services: Vec::new() }
    }

    /// Reads a text setting with the parser `parse`.
    pub(super) fn text<T>(
        &mut self,
        setting: &'static Setting,
        default: impl FnOnce() -> Result<T, String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.aliased(setting, &[], default, parse)
    }

    /// Reads a text setting. If the variable of the setting is unset, the variables in `aliases` are read.
    pub(super) fn aliased<T>(
        &mut self,
        setting: &'static Setting,
        aliases: &[&'static str],
        default: impl FnOnce() -> Result<T, String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let said = self.said(setting, aliases)?;
        let judged = match &said.text {
            Some(text) => parse(text),
            None => default(),
        };
        let value = match (&said.text, setting.kind) {
            (Some(_), Kind::Secret) => super::TOKEN_IS_SET.to_owned(),
            (Some(text), Kind::Number { .. } | Kind::Switch | Kind::Text) => text.clone(),
            (None, _) => setting.default_text().unwrap_or_default(),
        };
        self.settle(setting, &said, judged, value)
    }

    /// Reads an integer setting, and checks that it is in its range.
    pub(super) fn number(&mut self, setting: &'static Setting, default: impl FnOnce() -> u64) -> Option<u64> {
        let mut said = self.said(setting, &[])?;
        let Kind::Number { noun, min, max } = setting.kind else { return None };
        if said.source == Source::Environment
            && let Some(text) = said.text.take_if(|text| is_of_a_service(setting.name, text))
        {
            self.of_services.push((setting, of_a_service(setting.name, &text)));
            said.source = Source::Default;
        }
        let judged = match &said.text {
            None => Ok(default().clamp(min, max)),
            Some(text) => match text.parse() {
                Ok(number) if (min..=max).contains(&number) => Ok(number),
                _ => Err(format!("{} is not {noun}: use a number from {min} to {max}", quoted(text))),
            },
        };
        let value = judged.as_ref().map_or_else(|_| String::new(), u64::to_string);
        self.settle(setting, &said, judged, value)
    }

    /// A variable that is not a setting; `None` if it is empty or not UTF-8.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name)?.into_string().ok().filter(|value| !value.is_empty())
    }

    /// Whether a valid value was given for a setting that has been read.
    pub(super) fn is_set(&self, setting: &Setting) -> bool {
        self.shown.iter().any(|shown| shown.name == setting.name && shown.source != Source::Default)
    }

    /// Reads a boolean setting.
    pub(super) fn switch(&mut self, setting: &'static Setting) -> Option<bool> {
        let said = self.said(setting, &[])?;
        let default = setting.default_text().as_deref() == Some("true");
        let judged = said.text.as_deref().map_or(Ok(default), parse::switch);
        let value = judged.as_ref().map_or_else(|_| String::new(), bool::to_string);
        self.settle(setting, &said, judged, value)
    }

    /// Replaces the value that `--print-config` shows.
    pub(super) fn show_as(&mut self, setting: &'static Setting, value: String) {
        if let Some(shown) = self.shown.iter_mut().find(|shown| shown.name == setting.name) {
            shown.value = value;
        }
    }

    fn settle<T>(
        &mut self,
        setting: &'static Setting,
        said: &Said,
        judged: Result<T, String>,
        value: String,
    ) -> Option<T> {
        match judged {
            Ok(held) => {
                self.shown.push(Shown { name: setting.name, value, source: said.source });
                Some(held)
            }
            Err(problem) => {
                self.refusals.push(SettingError::named(setting, said.variable, problem));
                None
            }
        }
    }

    /// Reads a setting. An empty value counts as unset, since Kubernetes manifests and compose files leave variables
    /// empty. If the value is not UTF-8, records an error and returns `None`.
    fn said(&mut self, setting: &'static Setting, aliases: &[&'static str]) -> Option<Said> {
        let flag = self.flags.given.get(setting.name).map(|value| (value.clone(), Source::Flag, setting.name));
        let variables = std::iter::once(setting.name).chain(aliases.iter().copied());
        let env = self.env;
        let variables = variables.filter_map(|name| Some((env(name)?, Source::Environment, name)));
        for (value, source, variable) in flag.into_iter().chain(variables) {
            let Ok(text) = value.into_string() else {
                self.refusals.push(SettingError::named(setting, variable, "its value is not UTF-8: use UTF-8 text"));
                return None;
            };
            let text = text.trim();
            if !text.is_empty() {
                return Some(Said { text: Some(text.to_owned()), source, variable });
            }
        }
        Some(Said { text: None, source: Source::Default, variable: setting.name })
    }
}

/// Whether Kubernetes (or Docker, for a linked container) has set this variable for a Service. For a Service named
/// `mesh`, Kubernetes sets `MESH_PORT` to a value such as `tcp://10.0.0.1:8080`. A variable in the specification of the
/// pod overrides the value of Kubernetes.
fn is_of_a_service(variable: &str, text: &str) -> bool {
    variable.ends_with("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme))
}

/// The error for a variable that Kubernetes has set for a Service.
fn of_a_service(variable: &str, text: &str) -> String {
    let service = variable.trim_end_matches("_PORT").to_ascii_lowercase().replace('_', "-");
    format!(
        "{} is not a port: Kubernetes sets this variable in the pods of a namespace with a Service named {service}. \
         Set `enableServiceLinks: false` in the pod, or set {variable} yourself",
        quoted(text)
    )
}
