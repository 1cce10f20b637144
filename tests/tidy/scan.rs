//! Reads Rust sources as tokens, so that a rule never trips over a comment or a string.
//!
//! It knows just enough of the language for the rules: comments, strings, attributes, `use` trees, items behind
//! `#[cfg(test)]` and the extent of functions. It does not expand macros.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An identifier or keyword.
    Word,
    /// A string literal; its text is what lies between the quotes.
    Text,
    /// A number, character or lifetime.
    Other,
    /// One character of punctuation.
    Mark,
}

/// One token.
#[derive(Clone, Debug)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its text.
    pub text: String,
    /// The line it starts on, from 1.
    pub line: usize,
    /// Whether it belongs to an item that exists only in tests.
    pub test: bool,
}

impl Token {
    /// Whether this is the word or mark `text`.
    pub fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Mark) && self.text == text
    }
}

/// One source file.
pub struct Source {
    /// Its path below the top of the project, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// Whether the whole file exists only in tests.
    pub test: bool,
}

/// A function and the lines from its `fn` to its closing brace.
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of `fn`.
    pub line: usize,
    /// How many lines it takes.
    pub lines: usize,
}

impl Source {
    /// Reads the file at `path`, which lies below `top`.
    pub fn read(top: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let relative = path.strip_prefix(top).expect("sources are listed below the top");
        let relative = relative.to_str().expect("source paths are text").replace('\\', "/");
        let test = relative.starts_with("tests/") || in_tests_directory(&relative);
        let mut tokens = tokens(&text);
        mark_tests(&mut tokens, test);
        Self { path: relative, text, tokens, test }
    }

    /// The tokens that make it into a program.
    pub fn program(&self) -> impl Iterator<Item = (usize, &Token)> {
        self.tokens.iter().enumerate().filter(|(_, token)| !token.test)
    }

    /// Whether the tokens from `at` on are `words`.
    pub fn follows(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(step, word)| self.tokens.get(at + step).is_some_and(|token| token.is(word)))
    }

    /// The module path of this file within its package: empty for the root.
    pub fn module(&self) -> Vec<String> {
        let Some((_, below)) = self.path.split_once("/src/") else { return Vec::new() };
        let below = below.strip_suffix(".rs").unwrap_or(below);
        let mut parts: Vec<String> = below.split('/').map(str::to_owned).collect();
        if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
            parts.pop();
        }
        parts
    }

    /// Every path that the program part names from its crate's root, with the line: `crate::`, `super::` and `use` trees.
    pub fn crate_paths(&self) -> Vec<(usize, Vec<String>)> {
        let mut found = Vec::new();
        for (at, token) in self.program() {
            let mut raw = Vec::new();
            if token.is("use") {
                use_tree(&self.tokens, &mut (at + 1), &mut Vec::new(), &mut raw);
            } else if token.is("crate") || token.is("super") {
                let inside_path = at > 0 && (self.tokens[at - 1].is(":") || self.tokens[at - 1].is("use"));
                if !inside_path && self.follows(at + 1, &[":", ":"]) {
                    raw.push(plain_path(&self.tokens, at));
                }
            }
            found.extend(raw.iter().filter_map(|path| Some((token.line, self.seen_from_root(path)?))));
        }
        found
    }

    /// `path` as seen from the root of the crate, unless it leads elsewhere.
    fn seen_from_root(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "super" => {
                let mut base = self.module();
                base.pop()?;
                let ups = rest.iter().take_while(|part| *part == "super").count();
                for _ in 0..ups {
                    base.pop()?;
                }
                base.extend(rest[ups..].iter().cloned());
                Some(base)
            }
            _ => None,
        }
    }

    /// The functions of the program part.
    pub fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (at, token) in self.program() {
            let Some(name) = self.tokens.get(at + 1) else { continue };
            if !token.is("fn") || name.kind != Kind::Word {
                continue;
            }
            if let Some(end) = body_end(&self.tokens, at) {
                let lines = self.tokens[end].line - token.line + 1;
                found.push(Function { name: name.text.clone(), line: token.line, lines });
            }
        }
        found
    }

    /// How many lines are left without those of test items.
    pub fn program_lines(&self) -> usize {
        let mut lines = self.text.lines().count();
        let mut at = 0;
        while at < self.tokens.len() {
            let length = self.tokens[at..].iter().take_while(|token| token.test).count();
            if length > 0 {
                lines -= self.tokens[at + length - 1].line - self.tokens[at].line + 1;
            }
            at += length.max(1);
        }
        lines
    }

    /// The modules that this file declares for tests alone, as paths of files and directories without suffix.
    fn test_modules(&self) -> Vec<String> {
        let own = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let base = match own.rsplit_once('/') {
            Some((directory, "mod" | "lib" | "main")) => directory,
            _ => own,
        };
        let declared = |at: usize| {
            let [a, b, c] = self.tokens.get(at..at + 3)? else { return None };
            (a.test && a.is("mod") && c.is(";")).then(|| format!("{base}/{}", b.text))
        };
        (0..self.tokens.len()).filter_map(declared).collect()
    }
}

/// Every Rust source below `top`, test modules marked as such.
pub fn sources(top: &Path) -> Vec<Source> {
    let mut paths = BTreeSet::new();
    files(top, &mut paths);
    let rust = paths.iter().filter(|path| path.extension().is_some_and(|suffix| suffix == "rs"));
    let mut sources: Vec<Source> = rust.map(|path| Source::read(top, path)).collect();
    let test_modules: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        let below = |module: &String| {
            source.path.strip_prefix(module.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        if !source.test && test_modules.iter().any(below) {
            source.test = true;
            source.tokens.iter_mut().for_each(|token| token.test = true);
        }
    }
    sources
}

/// All files below `folder`, without hidden ones and build products.
pub fn files(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.expect("the project's directories can be read")) {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let skipped = (name.starts_with('.') && name != ".ci") || name == "target" || name == "__pycache__";
        if skipped || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else {
            found.insert(path);
        }
    }
}

fn in_tests_directory(path: &str) -> bool {
    path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "benches"))
}

/// Splits `text` into tokens; comments are dropped.
pub fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut lexer = Lexer { chars, at: 0, line: 1, tokens: Vec::new() };
    while lexer.at < lexer.chars.len() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn bump(&mut self) -> char {
        let char = self.peek(0);
        self.line += usize::from(char == '\n');
        self.at += 1;
        char
    }

    fn push(&mut self, kind: Kind, line: usize, text: String) {
        self.tokens.push(Token { kind, text, line, test: false });
    }

    fn step(&mut self) {
        let line = self.line;
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => while self.at < self.chars.len() && self.bump() != '\n' {},
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(0),
            ('b' | 'c', '"') => {
                self.bump();
                self.string(0);
            }
            ('r', '"' | '#') if self.raw_string(1) => {}
            ('b', 'r') if matches!(self.peek(2), '"' | '#') && self.raw_string(2) => {}
            ('\'', _) => self.quote(),
            (char, _) if char.is_alphabetic() || char == '_' => {
                let word = self.take_while(|char| char.is_alphanumeric() || char == '_');
                self.push(Kind::Word, line, word);
            }
            (char, _) if char.is_ascii_digit() => {
                let number = self.take_while(|char| char.is_alphanumeric() || char == '_');
                self.push(Kind::Other, line, number);
            }
            (char, _) => {
                self.bump();
                if !char.is_whitespace() {
                    self.push(Kind::Mark, line, char.to_string());
                }
            }
        }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while self.at < self.chars.len() && keep(self.peek(0)) {
            taken.push(self.bump());
        }
        taken
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    self.bump();
                    continue;
                }
            }
            self.bump();
            self.bump();
            if depth == 0 {
                return;
            }
        }
    }

    /// A string up to its closing quote, which `hashes` hashes follow; no escapes count where there are any.
    fn string(&mut self, hashes: usize) {
        let line = self.line;
        self.bump();
        let mut text = String::new();
        while self.at < self.chars.len() {
            let char = self.bump();
            if char == '"' && (0..hashes).all(|ahead| self.peek(ahead) == '#') {
                self.at += hashes;
                break;
            }
            text.push(char);
            if char == '\\' && hashes == 0 {
                text.push(self.bump());
            }
        }
        self.push(Kind::Text, line, text);
    }

    /// A raw string whose quote or hashes start `prefix` characters on; false if it is a raw identifier instead.
    fn raw_string(&mut self, prefix: usize) -> bool {
        let hashes = (0..).take_while(|ahead| self.peek(prefix + ahead) == '#').count();
        if self.peek(prefix + hashes) != '"' {
            return false;
        }
        self.at += prefix + hashes;
        // A raw string without hashes has no escapes either, but none of ours ends in a backslash.
        self.string(hashes);
        true
    }

    /// A character literal or a lifetime.
    fn quote(&mut self) {
        let line = self.line;
        self.bump();
        let lifetime = (self.peek(0).is_alphabetic() || self.peek(0) == '_') && self.peek(1) != '\'';
        if lifetime {
            let name = self.take_while(|char| char.is_alphanumeric() || char == '_');
            self.push(Kind::Other, line, name);
            return;
        }
        while self.at < self.chars.len() {
            match self.bump() {
                '\\' => drop(self.bump()),
                '\'' => break,
                _ => {}
            }
        }
        self.push(Kind::Other, line, String::new());
    }
}

/// Marks what stands behind `#[cfg(test)]`, `#[cfg(all(test, ..))]` or `#[test]`.
fn mark_tests(tokens: &mut [Token], all: bool) {
    for token in tokens.iter_mut() {
        token.test = all;
    }
    let mut at = 0;
    while at < tokens.len() {
        let attribute = tokens[at].is("#") && tokens.get(at + 1).is_some_and(|token| token.is("["));
        if !attribute {
            at += 1;
            continue;
        }
        let close = matching(tokens, at + 1);
        let words: Vec<&str> = tokens[at + 2..close].iter().map(|token| token.text.as_str()).collect();
        let test = matches!(words[..], ["cfg", "(", "test", ..] | ["cfg", "(", "all", "(", "test", ..] | ["test"]);
        let end = if test { item_end(tokens, close + 1) } else { close };
        if test {
            tokens[at..=end].iter_mut().for_each(|token| token.test = true);
        }
        at = end + 1;
    }
}

/// Where the bracket at `open` closes.
fn matching(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.kind == Kind::Mark {
            match token.text.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at;
            }
        }
    }
    tokens.len() - 1
}

/// The last token of the item that starts at `at`, its further attributes included.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    // A field or a variant ends at a comma; in an item, commas separate its generic parameters.
    let mut item = false;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "fn" | "impl" | "struct" | "enum" | "trait" | "mod" | "use" | "const" | "static" | "type" => item = true,
            "(" | "[" if tokens[at].kind == Kind::Mark => at = matching(tokens, at),
            "{" if tokens[at].kind == Kind::Mark => {
                let close = matching(tokens, at);
                // `use a::{b, c};` goes on to its semicolon.
                let goes_on = tokens.get(close + 1).is_some_and(|token| token.is(";"));
                return if goes_on { close + 1 } else { close };
            }
            ";" if tokens[at].kind == Kind::Mark => return at,
            "," if tokens[at].kind == Kind::Mark && !item => return at,
            _ => {}
        }
        at += 1;
    }
    tokens.len() - 1
}

/// The closing brace of the function whose `fn` is at `at`; none for a declaration or a type.
fn body_end(tokens: &[Token], mut at: usize) -> Option<usize> {
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "(" | "[" if tokens[at].kind == Kind::Mark => at = matching(tokens, at),
            "{" if tokens[at].kind == Kind::Mark => return Some(matching(tokens, at)),
            ";" if tokens[at].kind == Kind::Mark => return None,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The segments of the path that starts at `at`.
fn plain_path(tokens: &[Token], mut at: usize) -> Vec<String> {
    let mut path = vec![tokens[at].text.clone()];
    let is = |at: usize, mark: &str| tokens.get(at).is_some_and(|token| token.is(mark));
    while is(at + 1, ":") && is(at + 2, ":") && tokens.get(at + 3).is_some_and(|token| token.kind == Kind::Word) {
        at += 3;
        path.push(tokens[at].text.clone());
    }
    path
}

/// Expands the `use` tree at `at` into full paths.
fn use_tree(tokens: &[Token], at: &mut usize, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let depth = prefix.len();
    while let Some(token) = tokens.get(*at) {
        *at += 1;
        match token.text.as_str() {
            "{" => loop {
                use_tree(tokens, at, prefix, found);
                let end = tokens.get(*at - 1);
                if end.is_none_or(|token| token.is("}") || token.is(";")) {
                    // The tree behind the brace ends here as well.
                    prefix.truncate(depth);
                    *at += 1;
                    return;
                }
            },
            "," | "}" | ";" => {
                if prefix.len() > depth {
                    found.push(prefix.clone());
                }
                prefix.truncate(depth);
                return;
            }
            "as" => *at += 1,
            _ if token.kind == Kind::Word => prefix.push(token.text.clone()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        let mut tokens = tokens(text);
        mark_tests(&mut tokens, false);
        Source { path: path.to_owned(), text: text.to_owned(), tokens, test: false }
    }

    #[test]
    fn comments_and_strings_hide_their_words() {
        let text = "// a.unwrap()\n/* b /* c */ d */ let e = \"f.unwrap() \\\" g\"; r#\"h \" i\"# 'j' '\\'' 'k: l";
        let words: Vec<String> =
            tokens(text).into_iter().filter(|token| token.kind == Kind::Word).map(|token| token.text).collect();
        assert_eq!(words, ["let", "e", "l"]);
    }

    #[test]
    fn items_behind_cfg_test_are_no_part_of_the_program() {
        let text =
            "fn a() {}\n#[cfg(test)]\n#[allow(b)]\nmod c { fn d() {} }\n#[cfg(test)]\nfn e<F, G>() {}\nfn h() {}";
        let source = source("store/src/a.rs", text);
        let names: Vec<String> = source.functions().into_iter().map(|function| function.name).collect();
        assert_eq!(names, ["a", "h"]);
        assert_eq!(source.program_lines(), 2);
    }

    #[test]
    fn use_trees_and_paths_are_seen_from_the_root() {
        let text =
            "use crate::{a::{B, c::D as E}, f};\nuse super::g::H;\nuse std::{i, j};\nfn k() { super::super::l::m() }";
        let found = source("store/src/x/y.rs", text).crate_paths();
        let paths: Vec<String> = found.into_iter().map(|(_, path)| path.join("::")).collect();
        assert_eq!(paths, ["a::B", "a::c::D", "f", "x::g::H", "l::m"]);
    }

    #[test]
    fn functions_are_measured_to_their_closing_brace() {
        let text = "fn a(b: [u8; 2]) -> u8\n{\n  c(|| { d })\n}\ntrait E { fn f(); }";
        let found = source("fs/src/a.rs", text).functions();
        assert_eq!(found.iter().map(|f| (f.name.as_str(), f.lines)).collect::<Vec<_>>(), [("a", 4)]);
    }
}
