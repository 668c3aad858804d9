//! How a pull comes along: a bar per layer on a terminal, lines elsewhere. Draws on standard error; that
//! nobody reads it stops nothing.

use super::client::short;
use super::{say, table};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use shim_proto::wherry_v1 as own;
use std::collections::BTreeMap;
use std::io::IsTerminal;

/// A bar per layer on a terminal, a line per layer elsewhere.
#[derive(Debug)]
pub(super) struct Bars {
    all: MultiProgress,
    layers: BTreeMap<String, ProgressBar>,
    terminal: bool,
}

impl Bars {
    /// Nothing has come yet.
    pub(super) fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { all, layers: BTreeMap::new(), terminal: std::io::stderr().is_terminal() }
    }

    /// Shows what has come.
    pub(super) fn show(&mut self, event: &own::PullEvent) {
        let known = self.layers.contains_key(&event.layer);
        let all = &self.all;
        let bar = self.layers.entry(event.layer.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:30}] {bytes}/{total_bytes}");
            let bar = ProgressBar::new(event.total).with_prefix(short(&event.layer).to_owned());
            all.add(style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style)))
        });
        bar.set_position(event.done);
        if event.done >= event.total && !bar.is_finished() {
            bar.finish();
            if !self.terminal {
                say(&format!("{} {}", short(&event.layer), table::size(event.total)));
            }
        } else if !known && !self.terminal {
            say(&format!("{} of {}", short(&event.layer), table::size(event.total)));
        }
    }

    /// Everything has come.
    pub(super) fn end(&self) {
        let _no_terminal = self.all.clear();
    }
}
