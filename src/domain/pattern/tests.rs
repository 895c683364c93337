use super::*;

/// Pattern, texts that `re.fullmatch` accepts, texts that it does not. Checked against CPython 3.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    ("abc", &["abc"], &["ab", "abcd", "xabc", "abc\n", "ABC"]),
    (r".*@example\.com", &["a@example.com", "@example.com"], &["a@example.com.evil.test", "a@exampleXcom", "a@example.com\n"]),
    (r"[^@\s]+@[^@\s]+\.[^@\s]+", &["v@example.org"], &["v example@b.c", "a@b", "a@b@c.d", "a@b.c\n"]),
    (r"^user$", &["user"], &["user\n", "users"]),
    (r"(?:a$|b$)", &["a", "b"], &["a\n", "ab"]),
    (r"a$|bc", &["a", "bc"], &["abc", "a\n"]),
    (r"(x(a$)?)", &["x", "xa"], &["xa\n", "xaa"]),
    (r"user\Z", &["user"], &["user\n"]),
    (r"\Auser\z", &["user"], &["user\n"]),
    (r"a|ab", &["a", "ab"], &["abb"]),
    (r"a{,3}", &["", "a", "aaa"], &["aaaa"]),
    (r"a{2}", &["aa"], &["a", "aaa"]),
    (r"a{2,}", &["aa", "aaaaa"], &["a"]),
    (r"a{1,2}?b", &["ab", "aab"], &["aaab"]),
    (r"a{,}", &["", "aaaa"], &["b"]),
    ("a{}", &["a{}"], &["a", ""]),
    ("a{b}", &["a{b}"], &["a"]),
    ("a{1", &["a{1"], &["a"]),
    ("{", &["{"], &[""]),
    ("a]}", &["a]}"], &["a"]),
    ("[[]", &["["], &["]", ""]),
    ("[]]", &["]"], &["["]),
    ("[^]]", &["a"], &["]"]),
    ("[a&&b]", &["a", "b", "&"], &["c", "ab"]),
    ("[a~~b]+", &["a~b"], &["c"]),
    (r"[+--]", &["+", ",", "-"], &["."]),
    (r"[a\-z]+", &["a-z"], &["b"]),
    ("[-a]+", &["-a"], &["b"]),
    ("[a-]+", &["-a"], &["b"]),
    ("[a-c]+", &["abc"], &["d", "-"]),
    (r"[\w-]+", &["a-b_9"], &["a b"]),
    (r"[^\w]", &["-", "\u{301}"], &["a", "_", "²"]),
    (r"[\W]", &["-"], &["a"]),
    (r"[\b]", &["\x08"], &["b"]),
    (r"[\]\[]+", &["[]"], &["a"]),
    (r"[\x41-\x43]", &["B"], &["D"]),
    (r"\x41\u0042\U00000043", &["ABC"], &["abc"]),
    (r"\0", &["\0"], &["0"]),
    (r"\101\012", &["A\n"], &["A"]),
    (r"\d+", &["123", "٣"], &["12a", "²"]),
    (r"\D", &["a"], &["1"]),
    (r"\w+", &["ab_9", "žluť", "²"], &["a-b", "e\u{301}"]),
    (r"\s", &[" ", "\n", "\u{a0}", "\x1c"], &["a", "\u{200b}"]),
    (r"\S+", &["ab"], &["a\x1fb"]),
    (r"(?a)\w+", &["ab_9"], &["ž", "²"]),
    (r"(?a)\d", &["1"], &["٣"]),
    (r"(?a)[\S]", &["\u{a0}"], &[" "]),
    (r"(?a:\d)\d", &["1٣"], &["٣1"]),
    (r"(?u)\w", &["ž"], &["-"]),
    (r"(?i)ABC", &["abc", "AbC"], &["abd"]),
    (r"(?i:a)b", &["Ab", "ab"], &["aB"]),
    (r"(?i)a(?-i:b)", &["Ab", "ab"], &["AB"]),
    (r"(?i)ŽLUŤ", &["žluť"], &["zlut"]),
    (r"(?i)[^a]", &["b"], &["a", "A"]),
    (r"a.b", &["axb", "a\rb"], &["a\nb", "ab"]),
    (r"(?s)a.b", &["a\nb"], &["ab"]),
    (r"(?s:.)", &["\n"], &[""]),
    (r"(?i)(?s)a.", &["A\n"], &["A"]),
    (r"(?m)a$\nb", &["a\nb"], &["ab"]),
    (r"(?m)^a$\n^b$", &["a\nb"], &["a\n"]),
    ("(?x) a b # a comment\n c [ ]", &["abc "], &["a b c ", "abc"]),
    (r"(?x)a\ b", &["a b"], &["ab"]),
    (r"(?x:a b)c d", &["abc d"], &["abcd"]),
    ("a b", &["a b"], &["ab"]),
    ("a#b", &["a#b"], &["a"]),
    ("a(?#a comment)b", &["ab"], &["a"]),
    ("(?P<name>a)b", &["ab"], &["a"]),
    ("(a(b(c)))", &["abc"], &["ab"]),
    ("()", &[""], &["a"]),
    ("a|", &["a", ""], &["b"]),
    ("(|a)", &["a", ""], &["b"]),
    ("a+?b*?c??", &["ab", "abbc"], &["b"]),
    ("(ab)+", &["abab"], &["aba"]),
    ("(a*)*", &["", "aaa"], &["b"]),
    (r"\bfoo\b", &["foo"], &["foos"]),
    (r"\.\@\-\/\!\_", &[".@-/!_"], &["x"]),
    (r"\ž", &["ž"], &["z"]),
    ("ab?$", &["a", "ab"], &["abb"]),
    ("$", &[""], &["\n"]),
    ("a$$", &["a"], &["a\n"]),
    ("", &[""], &["a"]),
    (".*", &["", "a"], &["a\n"]),
    (r"(?ai)k", &["K", "k"], &["\u{212a}"]),
    (r"(?i)İ", &["i", "I", "ı"], &["i\u{307}"]),
    (r"user$\n?", &["user", "user\n"], &["user\n\n"]),
    (r"(a$)\n|b", &["a\n", "b"], &["a"]),
    (r"(\n|a$)+", &["a\n", "\na"], &["a\n\n"]),
    (r"(?!svc[-_])[a-z][\w.-]*", &["anna", "svcprint"], &["svc_print", "Anna"]),
    (r"(?!.*@example\.com\Z).+@.+", &["a@b.c"], &["a@example.com"]),
    (r"(?i)\w+(?<!temp)", &["anna"], &["annaTEMP"]),
    (r"(.+)@\1\.example", &["a@a.example"], &["a@b.example"]),
    (r"(?i)(?P<n>.)(?P=n)", &["žŽ", "k\u{212a}"], &["ıi"]),
    (r"(a*)b\1", &["b", "aabaa"], &["aab"]),
    (r"(?:(a)|b)\1", &["aa"], &["b", "bb"]),
    (r"(<)?\w+(?(1)>)", &["<a>", "a"], &["<a", "a>"]),
    (r"(?:a|(a))(?(1)b|c)", &["ab", "ac"], &["b"]),
    (r"(?:(())|a\1)+", &["a", "aa"], &["b"]),
    (r"a++b", &["aab"], &["b"]),
    (r"a++a", &[], &["aa"]),
    (r"(?:a|ab){2}+", &["aa"], &["aba"]),
    (r"(?>a|ab)c", &["ac"], &["abc"]),
    (r"(?:a(?=b)|b)+", &["abab"], &["aba"]),
    (r".\b.", &["a-", "e\u{301}"], &["ab"]),
    (r"\B", &[""], &["a"]),
];

#[test]
fn patterns_match_as_pythons_fullmatch_does() {
    for (python, yes, no) in TABLE {
        let pattern = Pattern::parse(python).unwrap_or_else(|error| panic!("{python:?}: {error}"));
        for text in *yes {
            assert_eq!(pattern.matches(text), Ok(true), "{python:?} should match {text:?}");
        }
        for text in *no {
            assert_eq!(pattern.matches(text), Ok(false), "{python:?} should not match {text:?}");
        }
        assert_eq!(pattern.source(), *python);
    }
}

#[test]
fn what_python_refuses_is_refused_with_the_column() {
    let table: &[(&str, usize)] = &[
        ("(ab", 1),
        ("a(b(c)", 2),
        ("ab)", 3),
        ("a[bc", 2),
        ("[]", 1),
        (r"a[\", 2),
        (r"ab\", 3),
        (r"a\y", 2),
        (r"\p{L}", 1),
        (r"\xg1", 1),
        (r"\u12", 1),
        (r"\UFFFFFFFF", 1),
        (r"\uD800", 1),
        (r"\777", 1),
        (r"[\9]", 2),
        ("*a", 1),
        ("a|*", 3),
        ("(+)", 2),
        ("^*", 2),
        ("a**", 3),
        ("a{2}{3}", 5),
        ("a{3,2}", 2),
        ("a{99999999999}", 2),
        ("[z-a]", 2),
        ("[a--]", 2),
        (r"[a-\d]", 2),
        (r"[\d-z]", 2),
        ("a(?i)b", 2),
        ("(?k)", 3),
        ("(?i", 4),
        ("(?-i)a", 5),
        ("(?L)a", 3),
        ("(?au)a", 4),
        ("(?P<1a>x)", 1),
        ("(?P<a>x)(?P<a>y)", 9),
        ("(?P<a", 1),
        ("(?Px)", 1),
        ("(?#abc", 1),
        ("(?", 1),
        ("žž(", 3),
        (r"(a\1)", 3),
        (r"a\1(b)", 2),
        ("(?P=n)(?P<n>a)", 1),
        ("(?(2)a)(b)", 4),
        ("(?(0)a)", 4),
        ("(?(-1)a)", 4),
        ("(a)?(?(1)b|c|d)", 13),
        ("a(?<=b+)", 2),
        ("(?<=a|bc)", 1),
        (r"(?<=(a)\1)b", 8),
        ("(?<a>b)", 1),
        ("(?a)(?u)b", 5),
        ("(?i-i:a)", 5),
        (r"a(?#\)", 2),
        (r"a\N{DIGIT ONE}", 2),
    ];
    for (python, column) in table {
        match Pattern::parse(python) {
            Ok(_) => panic!("{python:?} was accepted"),
            Err(error) => assert_eq!(error.column, *column, "{python:?}: {error}"),
        }
    }
}

#[test]
fn the_linear_engine_runs_what_it_can() {
    let linear = |python: &&str| matches!(Pattern::parse(python), Ok(Pattern { engine: Engine::Linear(_), .. }));
    let can = ["a", "(?i)[^a-z]+", "(?ai)k", "^a$", "(a$|b)?", "(?m)a$\nb", r"(?a)\bfoo", r"(?x: a b )(c|d){2,3}?", "(?P<n>a)*", "(|a)+"];
    let cannot = [
        "a(?=b)b",
        "(?!b)a",
        "(?<=b)a",
        "(?<!b)a",
        r"(a)\1",
        "(?P<n>a)(?P=n)",
        "(?>a)",
        "(a)?(?(1)b|c)",
        "a++",
        "a{2}+",
        "a$\n",
        "(a$)b",
        r"\ba",
        r"(\w{999}){999}", // takes too much memory when written out
    ];
    assert_eq!(can.iter().filter(|python| !linear(python)).collect::<Vec<_>>(), [&""; 0]);
    assert_eq!(cannot.iter().filter(|python| linear(python)).collect::<Vec<_>>(), [&""; 0]);
}

#[test]
fn a_pattern_that_tries_all_combinations_gives_up() {
    let many = "a".repeat(60);
    for python in [
        r"(a+)+\1$b",
        r"(?:a|a)*(?<!a)",
        r"(?:a*)*(?=b)",
        r"(?:(a|aa)+)+\1b",
        "(?:a?){60}(?!a)b",
        "(?:(?:a+)+(?=b)|a)*b",
        r"(a*?)*?\1b",
        "(?:(?>a)|(?>aa))+b",
        "(?:(?=a)){4000000000}a*",
    ] {
        assert_eq!(Pattern::parse(python).unwrap().matches(&many), Err(TooManySteps), "{python}");
    }
    assert_eq!(
        TooManySteps.to_string(),
        "the pattern needs more than 250000 steps for this text; write it in a simpler way, without repetitions in repetitions"
    );
}

#[test]
fn repetitions_are_counted_and_not_written_out() {
    assert_eq!(Pattern::parse(r"(\w{999}){999}").unwrap().matches("abc"), Ok(false));
    assert_eq!(Pattern::parse("(?=a)(a{20}){3}").unwrap().matches(&"a".repeat(60)), Ok(true));
}

#[test]
fn a_long_text_is_no_reason_to_give_up() {
    let long = format!("{}@example.com", "anna.k".repeat(1700));
    for (python, matches) in [
        (r"(?!svc).+@.+", true),
        (r"(?!.*@example\.com\Z).+", false),
        (r".+(?<=\.com)", true),
        (r"(.)(.).*\1.*\2.*", true),
        (r"(?:(?!@).)*+@.*", true),
        (r"(?:\b[\w.]+\b[@.]?)+", true),
        (r"(?:\w|\.|@)*+", true),
    ] {
        assert_eq!(Pattern::parse(python).unwrap().matches(&long), Ok(matches), "{python}");
    }
    let numbers: String = (1000..3500).map(|n| n.to_string()).collect();
    assert_eq!(Pattern::parse(r"(.*)\1").unwrap().matches(&numbers), Ok(false));
    // Here each letter would be looked at from each other one.
    assert_eq!(Pattern::parse("(?:(?!.*xx).)*").unwrap().matches(&long), Err(TooManySteps));
}

#[test]
fn parentheses_too_deep_are_refused() {
    let nested = |open: &str, depth: usize| Pattern::parse(&format!("(a){}b{}", open.repeat(depth), ")".repeat(depth)));
    for open in ["(", "(?:", "(?=", "(?(1)", "(?i:"] {
        assert!(nested(open, 99).is_ok_and(|pattern| pattern.matches("a").is_ok()), "{open}");
        let error = nested(open, 20_000).unwrap_err();
        assert_eq!(error.message, "parentheses stand more than 100 deep in each other; write it in a simpler way");
    }
    let repeated = format!("{}b{}", "(?:a|".repeat(99), ")+".repeat(99));
    assert_eq!(Pattern::parse(&repeated).unwrap().matches("ab"), Ok(true));
}

#[test]
fn everybody_is_the_empty_pattern_and_dot_star_only() {
    assert!(Pattern::is_everybody("") && Pattern::is_everybody(".*"));
    assert!(!Pattern::is_everybody("^.*$") && !Pattern::is_everybody(" "));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(python in r"\PC{0,40}", text in r"\PC{0,8}") {
        if let Ok(pattern) = Pattern::parse(&python) {
            let _ = pattern.matches(&text);
        }
    }

    #[test]
    fn no_syntax_makes_the_reader_panic(python in r"[\\(){}\[\]|*+?.^$:!<=>#PimsxuaL\-,0-9a-zA-Z& \nž]{0,24}") {
        if let Ok(pattern) = Pattern::parse(&python) {
            let _ = pattern.matches("abc");
        }
    }

    /// The machine answers for what it need not answer as the linear engine does.
    #[test]
    fn both_engines_say_the_same(python in r"(?:[ab.]|\[[ab]\]|[ab][*+?]|\((?:\?:)?|\)|\)[*+?]\??|\||\{1,2\}|\^|\$|\\w|\(\?i:){0,12}", text in "[abA\n]{0,6}") {
        if let Ok(tree) = parse::parse(&python)
            && let Some(regex) = linear::compile(&tree)
            && let Ok(answer) = machine::matches(&program::compile(&tree), &text)
        {
            proptest::prop_assert_eq!(regex.is_match(&text), answer, "{:?} on {:?}", python, text);
        }
    }

    /// What the linear engine can do is written so that it understands it.
    #[test]
    fn what_is_written_for_the_linear_engine_compiles(python in r"[\\(){}\[\]|*+?.^$:#Pimsxuab\-,0-9 &~]{0,16}") {
        if let Ok(tree) = parse::parse(&python)
            && linear::compile(&tree).is_none()
        {
            proptest::prop_assert!(linear::write(&tree).is_none() || python.contains('{'), "{:?}", python);
        }
    }
}
