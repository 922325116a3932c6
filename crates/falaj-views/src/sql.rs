//! From SQL text to the one shape that a view has: `SELECT items FROM one relation [WHERE] [GROUP BY]`.
//!
//! Always: what is left out of the shape is refused where it stands, with a hint. The statements are
//! taken apart without `..`, so a clause that a newer parser learns does not slip through.

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, Query, Select, SelectFlavor, SelectItem, SetExpr, Spanned, Statement,
    TableFactor, TableWithJoins,
};
use datafusion::sql::sqlparser::dialect::SparkSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use crate::error::{Checked, Refusal};

/// Longest SQL text of a view in bytes.
const SQL_BYTES_MAX: usize = 16 * 1024;

/// Most operators within each other: bounds the depth of what is parsed.
const OPERATORS_MAX: usize = 400;

/// A view's SQL text, taken apart.
#[derive(Debug)]
pub(crate) struct Shape {
    /// The relation it reads.
    pub from: Ident,
    /// The name the relation goes by here, if another.
    pub alias: Option<Ident>,
    pub filter: Option<Expr>,
    pub group_by: Vec<Expr>,
    pub items: Vec<Item>,
    /// The statement as the parser writes it: the same for texts that differ in white space only.
    pub canonical: String,
}

/// One expression of the SELECT list.
#[derive(Debug)]
pub(crate) struct Item {
    pub expr: Expr,
    pub alias: Option<Ident>,
}

/// The statement's tokens, to say where a clause stands.
struct Text {
    tokens: Vec<TokenWithSpan>,
}

impl Text {
    /// Where one of `keywords` stands first.
    fn find(&self, keywords: &[Keyword]) -> Span {
        self.tokens
            .iter()
            .find(|t| {
                matches!(&t.token, Token::Word(w) if w.quote_style.is_none() && keywords.contains(&w.keyword))
            })
            .map_or(Span::empty(), |t| t.span)
    }

    /// Where operators pile up beyond [`OPERATORS_MAX`]. A chain such as `a + b + c ..` is a tree as
    /// deep as it is long, and the parser bounds only how deep parentheses nest.
    fn too_deep(&self) -> Option<Span> {
        // Operators since the last comma, for each open parenthesis or CASE.
        let mut open = vec![0_usize];
        for TokenWithSpan { token, span } in &self.tokens {
            let keyword = match token {
                Token::Word(word) if word.quote_style.is_none() => word.keyword,
                _ => Keyword::NoKeyword,
            };
            match (token, keyword) {
                (Token::LParen, _) | (_, Keyword::CASE) => open.push(0),
                (Token::RParen, _) | (_, Keyword::END) if open.len() > 1 => {
                    open.pop();
                }
                (Token::Comma, _)
                | (
                    _,
                    Keyword::WHEN
                    | Keyword::THEN
                    | Keyword::ELSE
                    | Keyword::FROM
                    | Keyword::WHERE
                    | Keyword::GROUP,
                ) => {
                    if let Some(last) = open.last_mut() {
                        *last = 0;
                    }
                }
                (Token::Whitespace(_) | Token::Number(..), _)
                | (Token::Word(_), Keyword::NoKeyword) => {}
                _ => {
                    if let Some(last) = open.last_mut() {
                        *last += 1;
                    }
                    if open.iter().sum::<usize>() > OPERATORS_MAX {
                        return Some(*span);
                    }
                }
            }
        }
        None
    }

    fn refuse(&self, keywords: &[Keyword], what: &str, hint: &str) -> Refusal {
        Refusal::new(
            self.find(keywords),
            format!("{what} is not supported in views"),
        )
        .hint(hint)
    }
}

/// Takes `sql` apart.
pub(crate) fn parse(sql: &str) -> Checked<Shape> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(Refusal::new(
            Span::empty(),
            format!("the SQL text is longer than {SQL_BYTES_MAX} bytes"),
        )
        .hint("split the view: a view can read a row view"));
    }
    let dialect = SparkSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|e| syntax(&ParserError::from(e)))?;
    let text = Text { tokens };
    if let Some(at) = text.too_deep() {
        return Err(Refusal::new(at, "expressions are nested too deeply")
            .hint("split the view: a view can read a row view"));
    }
    let mut statements = Parser::new(&dialect)
        .with_tokens_with_locations(text.tokens.clone())
        .parse_statements()
        .map_err(|e| {
            // The parser names no place where it ran out of text.
            let end = text.tokens.last().map_or(Location::empty(), |t| t.span.end);
            syntax(&e).or_at(end)
        })?;
    let statement = match statements.len() {
        1 => statements.remove(0),
        0 => {
            return Err(Refusal::new(Span::empty(), "there is no SQL statement")
                .hint("write `SELECT .. FROM records`"));
        }
        _ => {
            return Err(
                Refusal::new(statements[1].span(), "a view is one statement")
                    .hint("give the second one a view of its own"),
            );
        }
    };
    let canonical = statement.to_string();
    let Statement::Query(query) = statement else {
        return Err(Refusal::new(statement_start(&text), "a view is a SELECT")
            .hint("write `SELECT .. FROM records`"));
    };
    select(query_body(*query, &text)?, &text, canonical)
}

fn statement_start(text: &Text) -> Span {
    text.tokens
        .iter()
        .find(|t| !matches!(t.token, Token::Whitespace(_)))
        .map_or(Span::empty(), |t| t.span)
}

/// Checks what stands around the SELECT.
fn query_body(query: Query, text: &Text) -> Checked<Select> {
    let Query {
        with,
        body,
        order_by,
        limit_clause,
        fetch,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    if with.is_some() {
        return Err(text.refuse(
            &[Keyword::WITH],
            "WITH",
            "make the inner query a row view of its own and read that: `FROM its_name`",
        ));
    }
    if order_by.is_some() {
        return Err(text.refuse(
            &[Keyword::ORDER],
            "ORDER BY",
            "rows of a view have no order; a chart sorts with `top`",
        ));
    }
    if limit_clause.is_some() || fetch.is_some() {
        return Err(text.refuse(
            &[Keyword::LIMIT, Keyword::OFFSET, Keyword::FETCH],
            "LIMIT",
            "a view holds every group; a chart shows the largest with `top`",
        ));
    }
    if !locks.is_empty()
        || for_clause.is_some()
        || settings.is_some()
        || format_clause.is_some()
        || !pipe_operators.is_empty()
    {
        return Err(text.refuse(
            &[Keyword::FOR, Keyword::SETTINGS, Keyword::FORMAT],
            "what follows the SELECT",
            "a view is `SELECT .. FROM .. [WHERE ..] [GROUP BY ..]`",
        ));
    }
    match *body {
        SetExpr::Select(select) => Ok(*select),
        SetExpr::SetOperation { .. } => Err(text.refuse(
            &[
                Keyword::UNION,
                Keyword::INTERSECT,
                Keyword::EXCEPT,
                Keyword::MINUS,
            ],
            "combining queries",
            "write one view for each query",
        )),
        SetExpr::Query(_) => Err(Refusal::new(
            statement_start(text),
            "parentheses around the SELECT are not supported in views",
        )
        .hint("leave them out")),
        _ => Err(Refusal::new(statement_start(text), "a view is a SELECT")
            .hint("write `SELECT .. FROM records`")),
    }
}

/// Checks the clauses of the SELECT.
#[expect(clippy::too_many_lines, reason = "one clause after the other")]
fn select(select: Select, text: &Text, canonical: String) -> Checked<Shape> {
    let Select {
        select_token: _,
        optimizer_hints,
        distinct,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection,
        exclude,
        into,
        from,
        lateral_views,
        prewhere,
        selection,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having,
        named_window,
        qualify,
        window_before_qualify: _,
        value_table_mode,
        flavor,
    } = select;
    if distinct.is_some() {
        return Err(text.refuse(
            &[Keyword::DISTINCT],
            "SELECT DISTINCT",
            "group by the columns instead: `SELECT a, count(*) AS n .. GROUP BY a`",
        ));
    }
    if let Some(having) = &having {
        let span = text.find(&[Keyword::HAVING]);
        let span = if span == Span::empty() {
            having.span()
        } else {
            span
        };
        return Err(Refusal::new(span, "HAVING is not supported in views").hint(
            "filter records with WHERE; small groups are held back from charts by `k` in [privacy]",
        ));
    }
    if qualify.is_some() || !named_window.is_empty() {
        return Err(text.refuse(
            &[Keyword::QUALIFY, Keyword::WINDOW],
            "QUALIFY or WINDOW",
            "views have no window functions; time windows are `GROUP BY window(event_time, '1 minute')`",
        ));
    }
    if !sort_by.is_empty() || !cluster_by.is_empty() || !distribute_by.is_empty() {
        return Err(text.refuse(
            &[Keyword::SORT, Keyword::CLUSTER, Keyword::DISTRIBUTE],
            "SORT BY, CLUSTER BY or DISTRIBUTE BY",
            "rows of a view have no order",
        ));
    }
    if !lateral_views.is_empty() {
        return Err(text.refuse(
            &[Keyword::LATERAL],
            "LATERAL VIEW",
            "fields hold single values, there is nothing to explode",
        ));
    }
    if select_modifiers.is_some()
        || !optimizer_hints.is_empty()
        || top.is_some()
        || exclude.is_some()
        || into.is_some()
        || prewhere.is_some()
        || !connect_by.is_empty()
        || value_table_mode.is_some()
        || flavor != SelectFlavor::Standard
    {
        return Err(Refusal::new(
            statement_start(text),
            "this form of SELECT is not supported in views",
        )
        .hint("a view is `SELECT .. FROM .. [WHERE ..] [GROUP BY ..]`"));
    }
    let (from, alias) = relation(from, text)?;
    let group_by = match group_by {
        GroupByExpr::Expressions(expressions, modifiers) if modifiers.is_empty() => expressions,
        _ => {
            return Err(text.refuse(
                &[Keyword::GROUP],
                "GROUP BY ALL, ROLLUP, CUBE or TOTALS",
                "name the grouping expressions; write a view for each grouping",
            ));
        }
    };
    let items = projection.into_iter().map(item).collect::<Checked<_>>()?;
    Ok(Shape {
        from,
        alias,
        filter: selection,
        group_by,
        items,
        canonical,
    })
}

/// The one relation after FROM.
fn relation(mut from: Vec<TableWithJoins>, text: &Text) -> Checked<(Ident, Option<Ident>)> {
    const JOIN_HINT: &str = "a view reads one relation, `records` or a row view; declare the fields you need and they all stand in `records`";
    if from.len() > 1 {
        return Err(
            Refusal::new(from[1].span(), "joins are not supported in views").hint(JOIN_HINT),
        );
    }
    let Some(TableWithJoins { relation, joins }) = from.pop() else {
        return Err(Refusal::new(statement_start(text), "FROM is missing")
            .hint("a view reads `records` or a row view"));
    };
    if !joins.is_empty() {
        let span = text.find(&[
            Keyword::LEFT,
            Keyword::RIGHT,
            Keyword::FULL,
            Keyword::INNER,
            Keyword::CROSS,
            Keyword::NATURAL,
            Keyword::SEMI,
            Keyword::ANTI,
            Keyword::JOIN,
        ]);
        return Err(Refusal::new(span, "joins are not supported in views").hint(JOIN_HINT));
    }
    let span = relation.span();
    let TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints,
        version: None,
        with_ordinality: false,
        partitions,
        json_path: None,
        sample: None,
        index_hints,
    } = relation
    else {
        return Err(Refusal::new(
            span,
            "a subquery or table function is not supported in FROM",
        )
        .hint("make the inner query a row view of its own and read that: `FROM its_name`"));
    };
    let [part] = name.0.as_slice() else {
        return Err(
            Refusal::new(span, format!("`{name}` is not a relation here"))
                .hint("a view reads `records` or a row view, without a database name"),
        );
    };
    let Some(from) = part.as_ident().cloned() else {
        return Err(Refusal::new(span, "a function is not supported in FROM")
            .hint("a view reads `records` or a row view"));
    };
    if !with_hints.is_empty() || !partitions.is_empty() || !index_hints.is_empty() {
        return Err(
            Refusal::new(span, "hints on a relation are not supported in views")
                .hint("leave them out"),
        );
    }
    match alias {
        Some(alias) if !alias.columns.is_empty() || alias.at.is_some() => Err(Refusal::new(
            span,
            "column aliases after FROM are not supported in views",
        )
        .hint("rename columns in the SELECT list: `x AS y`")),
        alias => Ok((from, alias.map(|a| a.name))),
    }
}

fn item(item: SelectItem) -> Checked<Item> {
    let span = item.span();
    match item {
        SelectItem::UnnamedExpr(expr) => Ok(Item { expr, alias: None }),
        SelectItem::ExprWithAlias { expr, alias } => match alias.quote_style {
            None | Some('`') => Ok(Item {
                expr,
                alias: Some(alias),
            }),
            Some(_) => Err(Refusal::new(span, "a column's name is not a text")
                .hint(format!("write `AS {}` without quotes", alias.value))),
        },
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => {
            Err(Refusal::new(span, "`*` is not supported in views")
                .hint("name the columns: what a store gets is written down, not implied"))
        }
        SelectItem::ExprWithAliases { .. } => Err(Refusal::new(
            span,
            "several names for one column are not supported in views",
        )
        .hint("give each column one name: `x AS y`")),
    }
}

/// The parser's own complaint, with the position that it writes into its text.
fn syntax(error: &ParserError) -> Refusal {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => "expressions are nested too deeply",
    };
    let (message, at) = match text.rsplit_once(" at Line: ") {
        Some((message, rest)) => (message, position(rest).unwrap_or_else(Location::empty)),
        None => (text, Location::empty()),
    };
    let mut message = message.to_owned();
    // `Expected: ..` as the parser has it; our messages begin in lower case.
    if let Some(first) = message.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    Refusal::at(at, format!("not Spark SQL: {message}"))
}

fn position(text: &str) -> Option<Location> {
    let (line, column) = text.split_once(", Column: ")?;
    let digits = column.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(Location {
        line: line.parse().ok()?,
        column: digits.parse().ok()?,
    })
}
