// A table that is wider than the page can be scrolled by keyboard, and a screen reader says what it is.
function reachable() {
  for (const wrap of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (wrap.scrollWidth <= wrap.clientWidth) {
      for (const name of ["tabindex", "role", "aria-label"]) wrap.removeAttribute(name);
      continue;
    }
    const headings = [...document.querySelectorAll(".md-content :is(h1, h2, h3, h4)")];
    const above = headings.filter((h) => h.compareDocumentPosition(wrap) & Node.DOCUMENT_POSITION_FOLLOWING).pop();
    const title = above ? above.firstChild.textContent.trim() : document.title;
    const same = [...document.querySelectorAll(".md-typeset__scrollwrap")].indexOf(wrap) + 1;
    wrap.tabIndex = 0;
    wrap.setAttribute("role", "region");
    wrap.setAttribute("aria-label", `Table ${same}: ${title}`);
  }
}

new ResizeObserver(() => requestAnimationFrame(reachable)).observe(document.body);
