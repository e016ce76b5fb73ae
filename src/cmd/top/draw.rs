//! Draws the screens of `peerpigeon top`.

use std::time::{Duration, UNIX_EPOCH};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table, TableState, Wrap};

use super::model::{Hub, Model, Screen};
use super::sample::{Fault, Other, View, long_time, millis, short};

/// The last second of the year 9999.
const MAX_UNIX_SECONDS: u64 = 253_402_300_799;

/// Width of a sparkline in a table.
const SPARK: u16 = 12;

/// The bars of a sparkline, from low to high.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

const HELP: &str = "\
Enter        look at the selected hub or network
Esc          go back
up, down     select (also k, j)
s            sort by the next column
r            reverse the order
n            networks; Enter then lists the members of one
space        look at all hubs now
q            end

p99          99 of 100 signals took at most this time in the hub
turn         99 of 100 turns of its threads took at most this time; they should end within 5 ms
cpu          100 % is one core
";

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn red() -> Style {
    Style::new().fg(Color::Red)
}

/// Draws the screen.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>) {
    let [title, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(frame.area());
    // The sum of no numbers is -0.0, so 0.0 is added.
    let sum =
        |figure: fn(&View) -> f64| 0.0 + model.hubs.iter().filter_map(|hub| hub.view.as_ref()).map(figure).sum::<f64>();
    let reached = model.hubs.iter().filter(|hub| hub.error.is_none() && hub.view.is_some()).count();
    let in_state = |state| match model.hubs.iter().filter(|hub| hub.state() == state).count() {
        0 => String::new(),
        count => format!(", {count} {state}"),
    };
    let others: String = ["slow", "refused", "down"].map(in_state).concat();
    let head = format!(
        "peerpigeon top   {reached} of {} hubs{others}   {:.0} peers   {:.0} signals/s   {:.0} messages/s",
        model.hubs.len(),
        sum(|view| view.peers),
        sum(|view| view.signals),
        sum(|view| view.messages)
    );
    frame.render_widget(Line::styled(head, bold()), title);
    let keys = match model.screen {
        Screen::Hubs => format!(
            "sorted by {}{}   s sort  r reverse  Enter hub  n networks  ? help  q end",
            model.sort.label(),
            if model.is_reversed { ", reversed" } else { "" }
        ),
        Screen::Networks => "Enter members  Esc back  ? help  q end".to_owned(),
        Screen::Network(_) => "up, down members  Esc back  ? help  q end".to_owned(),
        Screen::Hub(_) => "Esc back  ? help  q end".to_owned(),
    };
    frame.render_widget(Line::styled(keys, Style::new().add_modifier(Modifier::DIM)), foot);
    if model.has_help {
        frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" Keys and columns ")), body);
        return;
    }
    match &model.screen {
        Screen::Hubs => hubs(model, frame, body),
        Screen::Hub(hub) => {
            if let Some(hub) = model.hubs.get(*hub) {
                one_hub(hub, frame, body);
            }
        }
        Screen::Networks => networks(model, frame, body),
        Screen::Network(name) => network(model, name, frame, body),
    }
}

/// A sparkline as text. Each bar is relative to the highest one.
pub(super) fn spark(figures: &[u64]) -> String {
    let most = figures.iter().copied().max().unwrap_or_default().max(1);
    let bar = |figure: &u64| {
        let height = (u128::from(*figure) * (BARS.len() as u128 - 1)).div_ceil(u128::from(most));
        usize::try_from(height).ok().and_then(|height| BARS.get(height)).copied().unwrap_or('█')
    };
    figures.iter().map(bar).collect()
}

/// A number that fits into a column: 950, 12.3k, 4.5M.
pub(super) fn compact(number: f64) -> String {
    match number {
        n if n < 10.0 && n.fract() >= 0.05 => format!("{n:.1}"),
        n if n < 1000.0 => format!("{n:.0}"),
        n if n < 1_000_000.0 => format!("{:.1}k", n / 1000.0),
        n if n < 1_000_000_000.0 => format!("{:.1}M", n / 1_000_000.0),
        n => format!("{:.1}G", n / 1_000_000_000.0),
    }
}

/// A number of bytes in megabytes, or "-" if the number is unknown.
fn megabytes(bytes: Option<f64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.0} MB", bytes / 1e6))
}

/// Replaces control characters, because clients choose the names of networks, and could control the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

pub(super) const COLUMNS: [&str; 9] = ["hub", "state", "peers", "nets", "sig/s", "msg/s", "p99", "turn", "cpu"];

/// The columns of a hub, without the sparkline and the faults.
pub(super) fn cells(hub: &Hub) -> [String; COLUMNS.len()] {
    let (name, state) = (clean(&hub.name), hub.state().to_owned());
    let Some(view) = &hub.view else {
        let mut cells = std::array::from_fn(|_| String::new());
        (cells[0], cells[1]) = (name, state);
        return cells;
    };
    let time = |time: Option<f64>| time.map_or_else(|| "-".to_owned(), millis);
    [
        name,
        state,
        compact(view.peers),
        compact(view.networks),
        compact(view.signals),
        compact(view.messages),
        time(view.latency),
        time(view.turn),
        format!("{:.0} %", view.cpu * 100.0),
    ]
}

fn hubs(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let order = model.order();
    let line = |(hub, fault): (&Hub, Fault)| fault_line(&format!("{}: {}", hub.name, fault.text), fault.alert);
    let faults: Vec<Line<'_>> = model.faults().into_iter().map(line).collect();
    // The table has a heading and one line for each hub, but at most two thirds of the lines. The other lines show
    // faults.
    let lines = u16::try_from(order.len()).unwrap_or(u16::MAX).saturating_add(2).min(area.height * 2 / 3);
    let [table, below] = Layout::vertical([Constraint::Length(lines), Constraint::Fill(1)]).areas(area);
    let width =
        order.iter().map(|&index| model.hubs[index].name.chars().count()).max().unwrap_or_default().clamp(3, 40);
    let rows = order.iter().map(|&index| {
        let hub = &model.hubs[index];
        let style = if hub.error.is_some() { red() } else { Style::new() };
        let mut row: Vec<Cell<'_>> = cells(hub).into_iter().map(Cell::from).collect();
        let history = hub.view.as_ref().map(|_| spark(&hub.signals.last(SPARK.into())));
        row.insert(5, Cell::from(history.unwrap_or_default()));
        Row::new(row).style(style)
    });
    let mut heading = COLUMNS.to_vec();
    heading.insert(5, "signals");
    let width = u16::try_from(width).unwrap_or(40);
    let widths = [width, 7, 6, 6, 6, SPARK, 6, 7, 7, 6].map(Constraint::Length);
    let table_of_hubs = Table::new(rows, widths)
        .header(Row::new(heading).style(bold()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(table_of_hubs, table, &mut TableState::new().with_selected(model.selected));
    let text = if faults.is_empty() { Text::from("no faults") } else { Text::from(faults) };
    let title = "What needs attention, and its heading in docs/runbook.md";
    let block = Block::new().title(title).title_style(bold());
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }).block(block), below);
}

/// A fault, and the heading of its paragraph in the runbook.
fn fault_line(text: &str, alert: &'static str) -> Line<'static> {
    Line::from(vec![Span::styled(clean(text), red()), Span::raw("  "), Span::styled(alert, bold())])
}

/// The first six parts with their rates, on one line.
pub(super) fn parts(parts: &[(String, f64)]) -> String {
    if parts.is_empty() {
        return "none".to_owned();
    }
    parts.iter().take(6).map(|(part, rate)| format!("{part} {}", compact(*rate))).collect::<Vec<_>>().join(", ")
}

fn one_hub(hub: &Hub, frame: &mut Frame<'_>, area: Rect) {
    let faults = hub.faults();
    let Some(view) = &hub.view else {
        let text: Vec<_> =
            faults.iter().map(|fault| fault_line(&format!("{}: {}", hub.name, fault.text), fault.alert)).collect();
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    };
    let links = hub.last.as_ref().map(|last| last.hubstats.links.as_slice()).unwrap_or_default();
    let width = usize::from(area.width.max(1));
    let lines = |fault: &Fault| (fault.text.chars().count() + 2 + fault.alert.len()).div_ceil(width);
    let fault_lines = u16::try_from(faults.iter().map(lines).sum::<usize>()).unwrap_or(u16::MAX).min(area.height / 3);
    let link_lines = u16::try_from(links.len()).unwrap_or(u16::MAX).saturating_add(2).min(area.height / 3);
    let others: Vec<&Other> = hub.last.iter().flat_map(|last| &last.hubstats.hubs).collect();
    let other_lines = u16::try_from(others.len()).unwrap_or(u16::MAX).saturating_add(1).min(area.height / 4);
    let [facts, problems, sparks, threads, table, elsewhere] = Layout::vertical([
        Constraint::Length(9),
        Constraint::Length(fault_lines),
        Constraint::Length(4),
        Constraint::Length(u16::try_from(view.shards.len()).unwrap_or(u16::MAX).saturating_add(1)),
        Constraint::Length(link_lines),
        Constraint::Length(other_lines),
    ])
    .areas(area);
    let line = |name: &str, text: String| {
        Line::from(vec![Span::styled(format!("{name:<10}"), bold()), Span::raw(clean(&text))])
    };
    let outcomes = match parts(&view.outcomes) {
        none if view.outcomes.is_empty() => none,
        parts => format!("{parts}; {} not delivered", compact(view.lost_signals)),
    };
    let text = vec![
        line(
            "hub",
            format!("{}  id {}  version {}  up {}", hub.name, short(&view.id), view.version, long_time(view.uptime)),
        ),
        line(
            "peers",
            format!(
                "{:.0} of {:.0}, and {:.0} at other hubs, in {:.0} networks; {:.1} joins/s, {:.1} ends/s",
                view.peers, view.max_connections, view.remote_peers, view.networks, view.joins, view.closes
            ),
        ),
        line(
            "memory",
            format!(
                "{}   cpu {:.0} %   answers in {}",
                megabytes(view.resident_bytes),
                view.cpu * 100.0,
                millis(view.answer.as_secs_f64())
            ),
        ),
        line("messages", parts(&view.message_types)),
        line("outcomes", outcomes),
        line("ends", parts(&view.close_reasons)),
        line("errors", parts(&view.errors)),
        line("refused", parts(&view.refusals)),
    ];
    frame.render_widget(Paragraph::new(text), facts);
    let text: Vec<_> = faults.iter().map(|fault| fault_line(&fault.text, fault.alert)).collect();
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), problems);
    let thirds = Layout::horizontal([Constraint::Ratio(1, 3); 3]).spacing(1).split(sparks);
    let graphs = [("signals/s", &hub.signals), ("messages/s", &hub.messages), ("peers", &hub.peers)];
    for ((name, history), area) in graphs.into_iter().zip(thirds.iter()) {
        let figures = history.last(area.width.into());
        let now = figures.last().copied().unwrap_or_default();
        let block = Block::new().title(format!("{name}: {now}")).title_style(bold());
        frame.render_widget(Sparkline::default().data(figures).block(block), *area);
    }
    let rows = view.shards.iter().map(|shard| {
        let what = if shard.name == "mesh" { "links" } else { "peers" };
        Row::new([
            shard.name.clone(),
            format!("{:.0} %", shard.busy * 100.0),
            format!("{:.0} {what}", shard.sessions),
            format!("{} bytes wait", compact(shard.queued_bytes)),
        ])
    });
    let widths = [10, 6, 14, 20].map(Constraint::Length);
    let heading = Row::new(["thread", "busy", "serves", "queues"]).style(bold());
    frame.render_widget(Table::new(rows, widths).header(heading), threads);
    let rows = links.iter().map(|link| {
        let rtt = link.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| millis(rtt / 1000.0));
        let state = match (link.ready, link.saturated) {
            (false, _) => "opens",
            (true, true) => "full",
            (true, false) => "ready",
        };
        let id = link.hub.as_deref().map_or("-", short).to_owned();
        let way = if link.dialed { "dialed" } else { "accepted" };
        Row::new([clean(link.name()), id, way.to_owned(), state.to_owned(), rtt, compact(link.queued_bytes as f64)])
    });
    let widths = [36, 9, 9, 6, 8, 8].map(Constraint::Length);
    let heading = Row::new(["link to", "hub", "way", "state", "rtt", "queued"]).style(bold());
    frame.render_widget(Table::new(rows, widths).header(heading), table);
    frame.render_widget(other_hubs(&others), elsewhere);
}

/// The figures that other hubs have sent.
fn other_hubs(others: &[&Other]) -> Table<'static> {
    let rows = others.iter().map(|other| {
        let figures = other.status.as_ref().map(|status| {
            [
                clean(&status.version),
                format!("{} of {}", status.connections, status.max_connections),
                format!("{:.0} %", status.cpu / 10.0),
                format!("{:.0} %", status.busiest_shard / 10.0),
                compact(status.signals),
                megabytes(Some(status.memory).filter(|bytes| *bytes > 0.0)),
            ]
        });
        let figures = figures.unwrap_or_else(|| std::array::from_fn(|_| "-".to_owned()));
        Row::new([clean(short(&other.id)), clean(&other.state)].into_iter().chain(figures))
    });
    let widths = [10, 9, 8, 16, 6, 8, 9, 9].map(Constraint::Length);
    let heading = Row::new(["other hub", "state", "version", "connections", "cpu", "busiest", "signals/s", "memory"]);
    Table::new(rows, widths).header(heading.style(bold()))
}

fn networks(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    if model.networks.is_empty() {
        let text = "No networks, or their names are for operators only: give --token-file with ADMIN_TOKEN.";
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let rows = model.networks.iter().map(|network| {
        let history = model.members(&network.name).map(|history| spark(&history.last(SPARK.into())));
        Row::new([clean(&network.name), compact(network.members as f64), history.unwrap_or_default()])
    });
    let table = Table::new(rows, [Constraint::Fill(1), Constraint::Length(8), Constraint::Length(SPARK)])
        .header(Row::new(["network", "members", "lately"]).style(bold()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(model.selected));
}

fn network(model: &Model, name: &str, frame: &mut Frame<'_>, area: Rect) {
    let hub_lines = u16::try_from(model.hubs.len()).unwrap_or(u16::MAX).saturating_add(2).min(area.height / 3);
    let [title, graph, table, members] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(5),
        Constraint::Length(hub_lines),
        Constraint::Fill(1),
    ])
    .areas(area);
    frame.render_widget(Line::styled(clean(&format!("network {name}")), bold()), title);
    let figures = model.members(name).map(|history| history.last(graph.width.into())).unwrap_or_default();
    let now = figures.last().copied().unwrap_or_default();
    let block = Block::new().title(format!("members: {now}")).title_style(bold());
    frame.render_widget(Sparkline::default().data(figures).block(block), graph);
    let rows = model.hubs.iter().map(|hub| {
        let members = hub.current().and_then(|last| last.networks.get(name));
        Row::new([clean(&hub.name), members.map_or_else(|| "-".to_owned(), ToString::to_string)])
    });
    let heading = Row::new(["hub", "members that it knows"]).style(bold());
    frame.render_widget(Table::new(rows, [Constraint::Length(40), Constraint::Length(24)]).header(heading), table);
    roster(model, frame, members);
}

/// A time in UTC, in seconds.
fn time(unix_ms: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms));
    // The format has four digits for the year.
    let shown = time.filter(|_| unix_ms / 1000 <= MAX_UNIX_SECONDS);
    shown.map_or_else(|| "-".to_owned(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

/// The members of the network on the screen.
fn roster(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let (asked, roster) = match &model.roster {
        None => return frame.render_widget("reading the members…", area),
        Some((_, Err(error))) => {
            let text = Paragraph::new(clean(&format!("no list of members: {error}"))).wrap(Wrap { trim: true });
            return frame.render_widget(text, area);
        }
        Some((asked, Ok(roster))) => (*asked, roster),
    };
    let asked = model.hubs.get(asked);
    let id_of = |hub: &Hub| hub.last.as_ref().map(|last| last.stats.hub_peer_id.clone());
    let own = asked.and_then(id_of);
    // The name of a watched hub is more useful than its id.
    let name_of = |id: &str| {
        let watched = model.hubs.iter().find(|hub| id_of(hub).is_some_and(|own| own == id));
        watched.map_or_else(|| format!("hub {}", short(id)), |hub| hub.name.clone())
    };
    let rows = roster.members.iter().map(|member| {
        let at = member.hub.as_deref().or(own.as_deref()).map_or_else(|| "this hub".to_owned(), name_of);
        Row::new([clean(&member.peer), clean(&at), member.since.map_or_else(|| "-".to_owned(), time)])
    });
    let heading = match roster.count.saturating_sub(roster.members.len() as u64) {
        0 => "member".to_owned(),
        more => format!("member ({more} more are not listed)"),
    };
    let heading = Row::new([heading, "connected to".to_owned(), "joined at".to_owned()]).style(bold());
    let table = Table::new(rows, [Constraint::Length(42), Constraint::Fill(1), Constraint::Length(20)])
        .header(heading)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(model.selected));
}
