"""Tables in their formats, each checked by who has to read it: LaTeX itself, an HTML parser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from analysis import diagnostics_table, tables
from analysis.formats import Table, html, latex, markdown, page
from tests.analysis.conftest import SCHEDULES

NASTY = "50%_of & {all} #1 ~^\\ $x$ <b>a|b</b> \"q\" 'r'"
DOCUMENT = r"""\documentclass[%s]{article}
\usepackage{booktabs}
\renewcommand{\makebox}[2][]{#2} %% which would hide that a table is too wide
\begin{document}
%s
\end{document}
"""


class Cells(HTMLParser):
    """The texts of a table's rows, and every tag that there is."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self._open = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag):
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data):
        if self._open:
            self.rows[-1][-1] += data


def compiled(folder, *texts, columns="onecolumn"):
    """The log of pdflatex, which must have nothing to complain about."""
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed; apt-get install texlive-latex-recommended has it")
    (folder / "paper.tex").write_text(DOCUMENT % (columns, "\n".join(texts)))
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def floats_of(text):
    """The floats, without their beginnings."""
    return re.split(r"\\begin\{table\*?\}\[tbp\]", text)[1:]


def of(runs):
    made = tables.judged(runs)
    return [
        tables.accuracy(made, runs),
        tables.ablation(made, runs),
        tables.differences(made, runs),
        tables.effects(made, runs),
    ]


def test_latex_compiles_with_booktabs_alone_and_fits_the_page(quick, fail, tmp_path):
    fail(quick, [4, 9])
    quick["experiment"] = NASTY
    accuracy, ablation, differences, effects = map(latex, of(quick))
    assert "Overfull" not in compiled(tmp_path, accuracy, effects)
    wide = re.findall(r"Overfull .hbox .([\d.]+)pt", compiled(tmp_path, ablation, differences))
    assert all(float(points) < 90 for points in wide)  # ten and twelve columns: within the margins


def test_in_two_columns_a_table_stands_in_one_or_across_both_and_fits(quick, tmp_path):
    """In columns of 229 points, side by side in 469."""
    rows = [["constant", "5.09 ± 0.80 (n=9)"], ["one_cycle(rise=0.3)", "9.38 ± 0.97 (n=9)"]]
    narrow = latex(
        Table("tab:x", "A caption that is longer than a column is wide.", ["schedule", "error"], rows, 1, ["a note"])
    )
    assert "\\begin{table}[tbp]" in narrow
    wide = [latex(table) for table in of(quick)]
    assert all("\\begin{table*}[tbp]" in text and text.endswith("\\end{table*}\n") for text in wide)
    words = "Between the tables there is text of some length. " * 90
    log = compiled(tmp_path, words, narrow, words, *wide, words, columns="twocolumn")
    assert "Overfull" not in log
    assert "Float too large" not in log
    assert "Overfull" in compiled(tmp_path, wide[0].replace("table*", "table"), columns="twocolumn"), "else nothing was tried"


def test_tables_of_some_runs_have_labels_of_their_own(quick):
    labels = {tables.accuracy(tables.judged(quick), quick).label}
    for where in (("epochs<9",), ("epochs<=9",), ("epochs=9", "seed=0")):
        quick.attrs = {"where": where, "left_out": 1}
        label = tables.accuracy(tables.judged(quick), quick).label
        assert re.fullmatch(r"tab:quick-epochs[a-z0-9-]*", label)
        labels.add(label)
    quick.attrs = {"where": ("epochs=9", "seed=0"), "left_out": 1, "reference": ""}
    labels.remove(tables.accuracy(tables.judged(quick), quick).label)  # the same
    for where, reference in ((("epochs=9", "seed=0"), "r=1"), (("epochs=9", "seed=0", "r=1"), "")):
        quick.attrs = {"where": where, "left_out": 1, "reference": reference}
        labels.add(tables.accuracy(tables.judged(quick), quick).label)
    assert len(labels) == 5


def test_of_a_table_that_is_wider_than_a_page_each_float_has_the_labels_and_some_results(tmp_path):
    header = ["hidden capsules", "squash", *(f"result {i}" for i in range(11))]
    rows = [[f"[{n}]", "efficient", *(f"0.{n}{i:02d} ± 0.0{i:02d}" for i in range(11))] for n in range(1, 4)]
    text = latex(Table("tab:x", "caption", header, rows, 2, ["a remark"]))
    wide = re.findall(r"Overfull .hbox .([\d.]+)pt", compiled(tmp_path, text))
    assert all(float(points) < 90 for points in wide)  # within the margins
    floats = floats_of(text)
    assert [text.count("hidden") for text in floats] == [1] * len(floats) == [1, 1]
    assert [(text.count("efficient"), text.count("a remark"), text.count("\\label")) for text in floats] == [
        (3, 0, 1),
        (3, 1, 0),
    ]
    assert ["Continued." in text for text in floats] == [False, True]
    results = [re.findall(r"0\.\d{3}~", line) for line in text.splitlines() if "efficient" in line]
    assert [len(found) for found in results] in ([5] * 3 + [6] * 3, [6] * 3 + [5] * 3)
    assert [a + b for a, b in zip(results[:3], results[3:], strict=True)] == [
        [f"{cell[:5]}~" for cell in row[2:]] for row in rows
    ]


def test_lists_and_stars_begin_rows(make_runs, tmp_path):
    axes = {"hidden_capsules": [(), (16,), (16, 16)], "capsule_bias": [False, True], "squash": ["efficient", "paper"]}
    runs = make_runs({**axes, "votes_std": [0.1, 0.4]}, seeds=2)
    runs["coupling_entropy"], runs["logit_change_1"] = [2.2712, 2.2751] * 24, [0.0565, 0.0571] * 24
    runs["dead_primary_capsules"] = 0.0
    for name in ("hidden_length_1", "hidden_length_2", "right_length", "wrong_length"):
        runs[name] = [0.6316, 0.6412] * 24
    stars = Table("tab:x", "*", ["*", "x"], [["*", "1"], ["[3pt]", "2"]], 1, [])
    diagnostics = diagnostics_table.table(tables.judged(runs), runs)
    log = compiled(tmp_path, *map(latex, (*of(runs), stars, diagnostics)))
    assert all(float(points) < 90 for points in re.findall(r"Overfull .hbox .([\d.]+)pt", log))  # within the margins


@pytest.mark.parametrize("values", [(3, 3, 3), (5, 4, 4)])
def test_a_table_that_is_taller_than_a_page_goes_on_in_further_floats(make_runs, tmp_path, values):
    r, weights, batches = values
    axes = {"routing_iterations": [*range(1, r + 1)], "reconstruction_weight": [0.0, 5e-4, 1e-3, 2e-3][:weights]}
    found = of(make_runs({**axes, "lr_schedule": SCHEDULES, "batch_size": [16, 32, 64, 128][:batches]}, seeds=2))
    log = compiled(tmp_path, *map(latex, found))
    assert "Float too large" not in log
    for table in found:
        floats = floats_of(latex(table))
        assert len(floats) > 1
        assert [text.count("Continued.") for text in floats] == [0] + [1] * (len(floats) - 1)
        assert [text.count("\\addtocounter{table}{-1}") for text in floats] == [0] + [1] * (len(floats) - 1)
        assert [text.count("\\label") for text in floats] == [1] + [0] * (len(floats) - 1)
        bodies = [text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines() for text in floats]
        pieces = len({text.split("\\toprule")[1].split("\\midrule")[0] for text in floats})  # of one that is wide, too
        assert sum(map(len, bodies)) == len(table.rows) * pieces
        assert max(map(len, bodies)) < 4 * min(map(len, bodies)), "no page with a row or two"
        assert all(("(r: routing iterations" in text) == (i == 0) for i, text in enumerate(floats)), "the caption's legend"
        assert floats[-1].count("\\footnotesize") == len(table.notes) + latex(table).count("\\footnotesize\\setlength")


def test_a_small_table_is_one_float_whose_caption_has_room_above_the_rule(quick, tmp_path):
    for table in of(quick):
        text = latex(table)
        assert len(floats_of(text)) == 1
        assert text.index("\\setlength{\\belowcaptionskip}{6pt}") < text.index("\\caption{") < text.index("\\toprule")


def test_latex_takes_any_text_and_breaks_what_is_long(tmp_path):
    long = "3.80 ± 0.32 (n=2 of 3; 1 out of memory)"
    table = Table(
        "tab:x", NASTY, [NASTY, "a", "b", "c"], [[NASTY, long, long, "[−0.10, +0.20]"], ["", "—", "×", "…"]], 1, [NASTY]
    )
    text = latex(table)
    assert "3.80~$\\pm$~0.32" in text
    assert "[$-$0.10,~+0.20]" in text
    assert "Overfull" not in compiled(tmp_path, text)


@pytest.mark.parametrize("columns", [1, 4, 6, 9])
def test_texts_that_can_be_broken_fit_whatever_their_number(tmp_path, columns):
    words = "several words of an average length"
    table = Table("tab:x", "c", [words] * columns, [[words] * columns] * 3, 1, [])
    assert "Overfull" not in compiled(tmp_path, latex(table))


def test_what_cannot_be_broken_stops_nothing_else(tmp_path):
    stiff, words = "x" * 30, "some words that can be broken anywhere"
    text = latex(Table("tab:x", "c", [stiff, words, words], [[stiff, words, words]], 1, []))
    assert "Overfull" not in compiled(tmp_path, text)


def test_signs_of_mathematics_take_their_room(tmp_path):
    sums = " ".join(["+−×±"] * 9)
    assert "Overfull" not in compiled(tmp_path, latex(Table("tab:x", "c", [sums] * 3, [[sums] * 3], 1, [])))


def test_no_text_is_lost_between_the_lines():
    words = [["exponential(gamma=0.5, every=50)", "3.80 ± 0.32 (n=2 of 3; 1 diverged)", "", "x" * 60]]
    body = latex(Table("tab:x", "c", ["h"] * 4, words, 1, [])).split("\\midrule")[1].split("\\bottomrule")[0]
    bare = re.sub(r"\\begin\{tabular\}\[.\]\{@\{\}.@\{\}\}|\\end\{tabular\}|\\\\|[\s~&$]|\\pm", "", body)
    assert bare == re.sub(r"[\s±]", "", "".join(words[0]))


def test_html_holds_the_texts_as_they_are(quick):
    for table in of(quick):
        read = Cells(html(table))
        assert read.rows == [table.header, *table.rows]
        assert set(read.tags) == {"figure", "figcaption", "div", "table", "thead", "tbody", "tr", "th", "td", "p"}


def test_html_escapes_every_text():
    evil = "<script>alert(1)</script>\"'&"
    table = Table(evil, evil, [evil], [[evil]], 1, [evil])
    for text in (html(table), page(table)):
        assert "script" not in Cells(text).tags
        assert 'id="&lt;script' in text
    assert Cells(html(table)).rows == [[evil], [evil]]


def test_rows_that_stand_out_are_marked():
    text = html(Table("l", "c", ["a"], [["1"], ["2"]], 1, [], frozenset({1})))
    assert re.findall(r"<tr( class=\"marked\")?>\s*<td>(\d)", text) == [("", "1"), (' class="marked"', "2")]


def test_markdown_escapes_what_would_split_a_cell():
    table = Table("l", "c", ["a|b"], [["1|2"]], 1, [])
    assert "| a\\|b |" in markdown(table)
    assert "| 1\\|2 |" in markdown(table)
