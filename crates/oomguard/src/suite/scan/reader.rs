//! The walk through a syntax tree, which collects imports and hands on what may be a GPU's or a mark.

use std::collections::{BTreeMap, BTreeSet};

use ruff_python_ast::visitor::{Visitor, walk_expr, walk_interpolated_string_element, walk_stmt};
use ruff_python_ast::{Expr, ExprCall, InterpolatedStringElement, Stmt, StmtImport, StmtImportFrom};
use ruff_text_size::Ranged;

use super::super::{Imports, Marks};
use super::{Said, gpu, marks};

/// What lies deeper is not looked at. Blocks and brackets cannot be nested as deeply in any Python; a sum of many parts can.
const DEEPEST: u32 = 300;
/// No name that we look for has as many parts.
const LONGEST: usize = 16;

/// What has been seen so far. Places are offsets in bytes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// What a name of the file stands for: `np` for `numpy`, `mark` for `pytest.mark`.
    names: BTreeMap<String, String>,
    module: BTreeSet<String>,
    function: BTreeSet<String>,
    gpu: Option<(u32, String)>,
    marks: Marks,
    wrong: Option<(u32, String)>,
    in_function: u32,
    depth: u32,
    too_deep: bool,
}

impl Reader {
    /// Was a part of the tree left out?
    pub(super) fn too_deep(&self) -> bool {
        self.too_deep
    }

    /// All of it; `line` makes a line of an offset.
    pub(super) fn finish(self, line: &dyn Fn(u32) -> usize) -> Result<Said, (usize, String)> {
        if let Some((at, why)) = self.wrong {
            return Err((line(at), why));
        }
        // A module that is imported anyway is not imported late.
        let late = self.function.difference(&self.module).cloned().collect();
        Ok(Said {
            imports: Imports { module: self.module.into_iter().collect(), function: late },
            gpu: self.gpu.map(|(at, what)| format!("line {}: {what}", line(at))),
            marks: self.marks,
        })
    }

    /// The dotted name that `expr` is in full, if it is one: `jnp.zeros` as `jax.numpy.zeros`.
    fn dotted(&self, expr: &Expr) -> Option<String> {
        let mut parts = Vec::new();
        let mut expr = expr;
        while parts.len() < LONGEST {
            match expr {
                Expr::Attribute(attribute) => {
                    parts.push(attribute.attr.as_str());
                    expr = &attribute.value;
                }
                Expr::Name(name) => {
                    let first = name.id.as_str();
                    parts.push(self.names.get(first).map_or(first, String::as_str));
                    parts.reverse();
                    return Some(parts.join("."));
                }
                _ => return None,
            }
        }
        None
    }

    fn imports(&mut self, name: &str, at: u32) {
        if name.is_empty() || name.split('.').any(str::is_empty) {
            return;
        }
        let set = if self.in_function > 0 { &mut self.function } else { &mut self.module };
        set.insert(name.to_owned());
        if let Some(what) = gpu::import(name) {
            self.needs_gpu(at, what);
        }
    }

    fn needs_gpu(&mut self, at: u32, what: String) {
        if self.gpu.as_ref().is_none_or(|(first, _)| at < *first) {
            self.gpu = Some((at, what));
        }
    }

    fn import(&mut self, import: &StmtImport) {
        for alias in &import.names {
            let name = alias.name.as_str();
            self.imports(name, alias.start().to_u32());
            match &alias.asname {
                Some(short) => self.names.insert(short.to_string(), name.to_owned()),
                None => {
                    let top = name.split('.').next().unwrap_or(name);
                    self.names.insert(top.to_owned(), top.to_owned())
                }
            };
        }
    }

    fn import_from(&mut self, import: &StmtImportFrom) {
        let Some(module) = import.module.as_ref().filter(|_| import.level == 0) else { return };
        self.imports(module.as_str(), import.start().to_u32());
        for alias in import.names.iter().filter(|alias| alias.name.as_str() != "*") {
            let full = format!("{module}.{}", alias.name.as_str());
            self.imports(&full, alias.start().to_u32());
            let short = alias.asname.as_ref().unwrap_or(&alias.name);
            self.names.insert(short.to_string(), full);
        }
    }

    fn call(&mut self, call: &ExprCall) {
        let at = call.start().to_u32();
        match self.dotted(&call.func).as_deref() {
            Some("pytest.importorskip") => {
                let given = call.arguments.find_argument_value("modname", 0);
                if let Some(Expr::StringLiteral(name)) = given {
                    self.imports(name.value.to_str(), at);
                }
            }
            Some("pytest.mark.oomguard") => match marks::read(call) {
                Ok(found) => self.marks = marks::larger(self.marks, found),
                Err(wrong) => self.wrong = self.wrong.take().or(Some(wrong)),
            },
            _ => {}
        }
        if let Some((at, what)) = gpu::call(call) {
            self.needs_gpu(at, what);
        }
    }

    fn is_type_checking(&self, test: &Expr) -> bool {
        let name = self.dotted(test);
        name.is_some_and(|name| matches!(name.rsplit('.').next(), Some("TYPE_CHECKING")))
    }

    /// One level down, unless that is too far.
    fn deeper(&mut self, walk: impl FnOnce(&mut Self)) {
        if self.depth >= DEEPEST {
            self.too_deep = true;
            return;
        }
        self.depth += 1;
        walk(self);
        self.depth -= 1;
    }
}

impl<'a> Visitor<'a> for Reader {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            Stmt::Import(import) => self.import(import),
            Stmt::ImportFrom(import) => self.import_from(import),
            Stmt::If(branch) if self.is_type_checking(&branch.test) => {
                for other in &branch.elif_else_clauses {
                    self.visit_elif_else_clause(other);
                }
            }
            Stmt::FunctionDef(function) => self.deeper(|reader| {
                for decorator in &function.decorator_list {
                    reader.visit_decorator(decorator);
                }
                reader.visit_parameters(&function.parameters);
                reader.in_function += 1;
                reader.visit_body(&function.body);
                reader.in_function -= 1;
            }),
            _ => self.deeper(|reader| walk_stmt(reader, stmt)),
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Call(call) => self.call(call),
            Expr::Attribute(_) => {
                if let Some(what) = self.dotted(expr).as_deref().and_then(gpu::name) {
                    self.needs_gpu(expr.start().to_u32(), what);
                }
            }
            Expr::StringLiteral(text) => {
                if let Some(what) = gpu::text(text.value.to_str()) {
                    self.needs_gpu(expr.start().to_u32(), what);
                }
            }
            _ => {}
        }
        self.deeper(|reader| walk_expr(reader, expr));
    }

    fn visit_interpolated_string_element(&mut self, element: &'a InterpolatedStringElement) {
        if let InterpolatedStringElement::Literal(text) = element
            && let Some(what) = gpu::text(&text.value)
        {
            self.needs_gpu(text.start().to_u32(), what);
        }
        walk_interpolated_string_element(self, element);
    }
}
