"use strict";

// The table of all claims: what is chosen stands in the address, so that a view can be linked to.
const form = document.querySelector("form.filters");
if (form) {
  const rows = [...document.querySelectorAll("table.claims tbody tr")].map((element) => ({
    element,
    text: element.textContent.toLowerCase(),
  }));
  const output = form.querySelector("output");

  const chosen = () => [...new FormData(form)].filter(([, value]) => value.trim());

  const fits = (row, [name, value]) =>
    name === "text"
      ? value.toLowerCase().split(/\s+/).every((word) => row.text.includes(word))
      : row.element.dataset[name].split("|").includes(value);

  const filter = () => {
    const wanted = chosen();
    let shown = 0;
    for (const row of rows) {
      row.element.hidden = !wanted.every((one) => fits(row, one));
      shown += !row.element.hidden;
    }
    output.textContent = `${shown} of ${rows.length} claims`;
  };

  const fromAddress = () => {
    form.reset();
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      if (form.elements[name]) form.elements[name].value = value;
    }
    filter();
  };

  const toAddress = () => {
    const address = new URLSearchParams(chosen()).toString();
    history.replaceState(null, "", address ? `#${address}` : location.pathname + location.search);
    filter();
  };

  form.addEventListener("input", toAddress);
  form.addEventListener("reset", () => setTimeout(toAddress));
  form.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", fromAddress);
  fromAddress();
}

// A picture opens in its full size.
for (const picture of document.querySelectorAll("article img")) {
  if (!picture.closest("a")) picture.addEventListener("click", () => window.open(picture.src, "_blank"));
}

// Pictures above the place that a link leads to may have moved it.
window.addEventListener("load", () => document.querySelector(":target")?.scrollIntoView());
