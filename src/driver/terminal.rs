//! The terminal: what is pressed, what is shown, and that it is given back as it was.
//!
//! [`run`] shows the lines of a [`Screen`] until it has enough, while a thread of its own asks for news, so that keys
//! work when a server does not answer. This is the only file that names crossterm, and it knows nothing of what is
//! shown.

use std::io::{self, Write, stdout};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{cursor, execute, queue};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// How long a look for keys waits: news and signals are seen within this.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A key that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A letter or sign.
    Char(char),
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the first.
    Home,
    /// To the last.
    End,
}

/// How text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Look {
    /// As the terminal has it.
    #[default]
    Plain,
    /// A name or a heading.
    Bold,
    /// Of less weight.
    Dim,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// A heading across the line.
    Bar,
}

/// A line: pieces of text, without control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(pub Vec<(Look, String)>);

impl Line {
    /// A line of one look.
    pub fn new(look: Look, text: impl Into<String>) -> Self {
        Self(vec![(look, text.into())])
    }

    /// The same with more behind it.
    #[must_use]
    pub fn with(mut self, look: Look, text: impl Into<String>) -> Self {
        self.0.push((look, text.into()));
        self
    }

    /// The text alone, without spaces at its end.
    pub fn text(&self) -> String {
        let text: String = self.0.iter().map(|(_, text)| text.as_str()).collect();
        text.trim_end().to_owned()
    }
}

/// What is shown.
pub trait Screen<N> {
    /// Something is new.
    fn news(&mut self, news: N);
    /// A key was pressed; false: it is enough.
    fn key(&mut self, key: Key) -> bool;
    /// The lines for a window of this many columns and rows. Longer lines are cut, and rows beyond left out.
    fn lines(&mut self, columns: usize, rows: usize) -> Vec<Line>;
}

/// Shows a screen until it has enough, Ctrl-C is pressed, or a signal asks to end. `ask` is called once an interval, on a
/// thread of its own.
pub fn run<N: Send + 'static>(
    screen: &mut impl Screen<N>,
    interval: Duration,
    mut ask: impl FnMut() -> N + Send + 'static,
) -> io::Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        flag::register(signal, Arc::clone(&over))?;
    }
    // One that waits and one in hand: a screen that does not look slows the questions down.
    let (tell, news) = mpsc::sync_channel(1);
    thread::Builder::new().name("ask".into()).spawn(move || {
        loop {
            let asked = Instant::now();
            if tell.send(ask()).is_err() {
                return;
            }
            thread::sleep(interval.saturating_sub(asked.elapsed()));
        }
    })?;
    let _window = Window::open()?;
    let mut shown = Vec::new();
    while !over.load(Ordering::Relaxed) {
        while let Ok(news) = news.try_recv() {
            screen.news(news);
        }
        Window::show(screen, &mut shown)?;
        if !poll(LOOK_AGAIN)? {
            continue;
        }
        match read()? {
            Event::Key(key) if key.kind == KeyEventKind::Release => {}
            Event::Key(key) if is_interrupt(key) => break,
            Event::Key(key) if meaning(key).is_some_and(|key| !screen.key(key)) => break,
            // The terminal may have moved or cut what it showed.
            Event::Resize(..) => shown.clear(),
            _ => {}
        }
    }
    Ok(())
}

/// Ctrl-C is a key in raw mode, and no signal.
fn is_interrupt(key: KeyEvent) -> bool {
    key.modifiers.contains(KeyModifiers::CONTROL) && matches!(key.code, KeyCode::Char('c' | 'd'))
}

fn meaning(key: KeyEvent) -> Option<Key> {
    Some(match key.code {
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Esc => Key::Char('q'),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}

/// The terminal while it is ours. Dropping it, also by a panic, gives it back.
struct Window;

impl Window {
    fn open() -> io::Result<Self> {
        // A panic's message would be lost with the alternate screen, and its lines broken by the raw mode.
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            give_back();
            hook(panic);
        }));
        enable_raw_mode()?;
        let window = Self;
        execute!(stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(window)
    }

    /// Shows the screen's lines where they differ from what is shown.
    fn show<N>(screen: &mut impl Screen<N>, shown: &mut Vec<Line>) -> io::Result<()> {
        let (columns, rows) = size()?;
        let mut lines = screen.lines(columns.into(), rows.into());
        lines.truncate(rows.into());
        if lines == *shown {
            return Ok(());
        }
        let mut bytes = Vec::new();
        queue!(bytes, BeginSynchronizedUpdate)?;
        for (row, line) in (0..rows).zip(&lines) {
            queue!(bytes, cursor::MoveTo(0, row))?;
            let mut left = usize::from(columns);
            for (look, text) in &line.0 {
                let cut: String = text.chars().take(left).collect();
                left -= cut.chars().count();
                dress(&mut bytes, *look)?;
                queue!(bytes, Print(cut), SetAttribute(Attribute::Reset), ResetColor)?;
            }
            if left > 0 {
                queue!(bytes, Clear(ClearType::UntilNewLine))?;
            }
        }
        if lines.len() < rows.into() {
            queue!(bytes, cursor::MoveTo(0, lines.len() as u16), Clear(ClearType::FromCursorDown))?;
        }
        queue!(bytes, EndSynchronizedUpdate)?;
        let mut out = stdout().lock();
        out.write_all(&bytes)?;
        out.flush()?;
        *shown = lines;
        Ok(())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        give_back();
    }
}

/// The terminal may be gone: then there is nothing to give back.
fn give_back() {
    let _ = execute!(stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}

fn dress(bytes: &mut Vec<u8>, look: Look) -> io::Result<()> {
    match look {
        Look::Plain => Ok(()),
        Look::Bold => queue!(bytes, SetAttribute(Attribute::Bold)),
        Look::Dim => queue!(bytes, SetAttribute(Attribute::Dim)),
        Look::Good => queue!(bytes, SetForegroundColor(Color::Green)),
        Look::Warn => queue!(bytes, SetForegroundColor(Color::Yellow)),
        Look::Bad => queue!(bytes, SetForegroundColor(Color::Red), SetAttribute(Attribute::Bold)),
        Look::Bar => queue!(bytes, SetAttribute(Attribute::Reverse)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_end_the_show_and_keys_that_mean_nothing() {
        let key = |code, modifiers| KeyEvent::new(code, modifiers);
        assert!(is_interrupt(key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!is_interrupt(key(KeyCode::Char('c'), KeyModifiers::NONE)));
        assert_eq!(meaning(key(KeyCode::Esc, KeyModifiers::NONE)), Some(Key::Char('q')));
        assert_eq!(meaning(key(KeyCode::F(1), KeyModifiers::NONE)), None);
    }

    #[test]
    fn a_lines_text_is_its_pieces() {
        let line = Line::new(Look::Bold, "a ").with(Look::Bad, "b  ");
        assert_eq!(line.text(), "a b");
    }
}
