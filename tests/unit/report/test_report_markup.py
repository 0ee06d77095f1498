from keras_opt.report.markup import Html, element, join


def test_text_is_escaped_and_markup_is_kept():
    assert element("p", "a < b & c", element("b", '"')) == "<p>a &lt; b &amp; c<b>&quot;</b></p>"
    assert join("<", Html("<br>"), None) == "&lt;<br>"


def test_attributes_are_escaped_renamed_and_left_out():
    made = element("td", class_="a", aria_label='"x" <y>', open=True, title=None, hidden=False, colspan=0)
    assert made == '<td class="a" aria-label="&quot;x&quot; &lt;y&gt;" open colspan="0"></td>'


def test_void_elements_have_no_end():
    assert element("meta", name="viewport", content="x") == '<meta name="viewport" content="x">'


def test_file_names_that_are_no_utf8_are_shown():
    assert element("td", b"a\xff.png".decode(errors="surrogateescape")) == "<td>a\\udcff.png</td>"
