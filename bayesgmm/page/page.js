"use strict";

// Draws the pictures that the page holds as specifications, and makes the slider, the pickers and the list work.
(async () => {
  // The libraries stand in the page compressed: half of it, for a table of usual size.
  for (const packed of document.querySelectorAll('script[type="application/gzip"]')) {
    const bytes = Uint8Array.from(atob(packed.textContent), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const data = read("data");
  const pictures = read("pictures");
  const options = { renderer: "svg", actions: false, tooltip: { theme: "custom", offsetX: 12 } };
  const CIRCLE = Array.from({ length: 49 }, (_, i) => [Math.cos((i * Math.PI) / 24), Math.sin((i * Math.PI) / 24)]);
  const GOLDEN = 0.6180339887;
  const MAPPED = 500; // rows in the small picture beside the list

  const rows = data.rows.row.map((row, i) => {
    const one = { drawn: 1 };
    for (const name of Object.keys(data.rows)) one[name] = data.rows[name][i];
    one.size = (data.rows.row.length > 1000 ? 14 : 38) * (1 + 8 * (1 - one.p));
    one.tip = told(one);
    return one;
  });
  const byNumber = new Map(rows.map((row) => [row.row, row]));
  const listed = data.listed.map((number) => byNumber.get(number));
  const nDrawn = rows.filter((row) => row.drawn).length;
  const views = [];

  function chance(p, lower, upper) {
    return lower === undefined ? p.toFixed(2) : `${p.toFixed(2)} [${lower.toFixed(2)}, ${upper.toFixed(2)}]`;
  }

  function told(row) {
    const tip = { row: String(row.row) };
    if (row.id !== undefined) tip.id = row.id;
    for (const i of data.told) tip[data.features[i]] = row[`x${i}`] === null ? "missing" : String(row[`x${i}`]);
    if (data.choices > 1) {
      tip[nameOf(row.group)] = chance(row.p, row.lower, row.upper);
      tip[nameOf(row.rival)] = row.q.toFixed(2);
    }
    return tip;
  }

  function nameOf(group) {
    return group < 0 ? "noise" : `${data.group} ${group}`;
  }

  // Points at a distance of so many standard deviations around every mean, for two features.
  function outlines(across, up) {
    const at = (a, b) => (Math.max(a, b) * (Math.max(a, b) + 1)) / 2 + Math.min(a, b);
    const points = [];
    const names = [];
    data.outlines.forEach((mixture, draw) => {
      mixture.means.forEach((mean, group) => {
        const covariance = mixture.covariances[group];
        const a = Math.sqrt(covariance[at(across, across)]);
        const b = covariance[at(across, up)] / a;
        const c = Math.sqrt(Math.max(covariance[at(up, up)] - b * b, 0));
        const place = (radius, [cos, sin]) => ({
          x: mean[across] + radius * a * cos,
          y: mean[up] + radius * (b * cos + c * sin),
        });
        for (const radius of mixture.draw ? [2] : [1, 2]) {
          CIRCLE.forEach((direction, t) =>
            points.push({
              ...place(radius, direction),
              t,
              group,
              line: `${draw} ${group} ${radius}`,
              width: mixture.draw ? 0.8 : 1.6,
              opacity: mixture.draw ? 0.22 : 1,
            }),
          );
        }
        if (!mixture.draw) {
          const length = Math.hypot(b, c) || 1;
          names.push({ ...place(2.25, [b / length, c / length]), name: nameOf(group) });
        }
      });
    });
    return { outlines: points, names: data.choices > 1 ? names : [] };
  }

  // Ends of an axis with room for all values, whatever the slider hides.
  function reach(values) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) if (value !== null) [low, high] = [Math.min(low, value), Math.max(high, value)];
    const margin = 0.04 * (high - low || 1);
    return [low - margin, high + margin];
  }

  // The picture of the rows with its data: two features, or a single one over rows at any height below the density.
  function filled(some, across, up) {
    const spec = structuredClone(pictures["rows-picture"]);
    const place = spec.usermeta;
    const height = (row) => place.lowest + ((row.row * GOLDEN) % 1) * (place.highest - place.lowest);
    const points = some.map((row) => ({ ...row, x: row[`x${across}`], y: place ? height(row) : row[`x${up}`] }));
    const drawn = place ? {} : outlines(across, up);
    spec.datasets = { rows: points, ...drawn };
    const centres = (drawn.outlines ?? []).filter((point) => point.opacity === 1); // a single draw may lie anywhere
    const axes = { x: data.features[across], ...(place ? {} : { y: data.features[up] }) };
    for (const [axis, title] of Object.entries(axes)) {
      const domain = place ? place.ends : reach([...points, ...centres].map((point) => point[axis]));
      for (const { encoding } of spec.layer) {
        encoding[axis].title = title;
        encoding[axis].scale = { ...encoding[axis].scale, domain };
      }
    }
    return spec;
  }

  const across = document.getElementById("across");
  const up = document.getElementById("up");
  let [picked, other = picked] = data.picked;

  async function drawRows() {
    const main = await vegaEmbed("#rows-picture", filled(rows, picked, other), options);
    views[0]?.finalize();
    views[0] = main.view;
    const map = document.getElementById("map");
    if (map) {
      const spec = filled(listed.slice(0, MAPPED).map((row) => ({ ...row, drawn: 1 })), picked, other);
      spec.height = 300;
      const small = await vegaEmbed(map, spec, options);
      views[1]?.finalize();
      views[1] = small.view;
    }
    showCertainty();
    if (current !== null) ring(current);
  }

  function choose() {
    [picked, other] = [Number(across.value), Number(up.value)];
    return drawRows();
  }

  if (across) {
    for (const [select, chosen] of [[across, picked], [up, other]]) {
      data.features.forEach((name, i) => select.add(new Option(name, i, i === chosen, i === chosen)));
      select.addEventListener("change", choose);
    }
  }

  // The slider. A hundred is all rows: most are so certain that equal steps of the probability would show none of them.
  const slider = document.getElementById("certainty");

  function showCertainty() {
    if (!slider) return;
    const least = 1 / data.choices;
    const limit = slider.value === slider.max ? 1 : least + (1 - least) * (Number(slider.value) / 100);
    const n = rows.filter((row) => row.drawn && row.p <= limit).length;
    const said = `${limit === 1 ? "1: all" : limit.toFixed(2)}, ${n} of ${nDrawn} rows`;
    document.getElementById("how-many").textContent = said;
    slider.setAttribute("aria-valuetext", said);
    views[0]?.signal("certainty", limit).runAsync();
  }

  slider?.addEventListener("input", showCertainty);

  // The list.
  const table = document.getElementById("row-list");
  let current = null;

  function ring(number) {
    current = number;
    for (const view of views) view.signal("ringed", number).runAsync();
  }

  function element(name, text, attributes = {}) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function bar(row) {
    const drawn = element("span", undefined, { class: "chance", "aria-hidden": "true" });
    drawn.style.setProperty("--bar", colorOf(row.group));
    drawn.style.setProperty("--at", row.p);
    drawn.style.setProperty("--from", row.lower ?? row.p);
    drawn.style.setProperty("--to", row.upper ?? row.p);
    drawn.append(element("i"), element("b"));
    return drawn;
  }

  function colorOf(group) {
    return group < 0 ? "var(--muted)" : document.querySelectorAll("#groups thead .key use")[group].getAttribute("fill");
  }

  function short(group) {
    return group < 0 ? "noise" : String(group);
  }

  function makeList() {
    const columns = [
      { name: "row", value: (row) => row.row, number: true },
      ...(data.rows.id ? [{ name: "id", value: (row) => row.id }] : []),
      { name: data.group, value: (row) => row.group, text: (row) => short(row.group), number: true },
      { name: "probability", value: (row) => row.p, text: (row) => chance(row.p, row.lower, row.upper), bar: true },
      { name: "or", value: (row) => row.q, text: (row) => `${short(row.rival)}: ${row.q.toFixed(2)}` },
      ...data.in_list.map((i) => ({ name: data.features[i], value: (row) => row[`x${i}`], number: true })),
    ];
    const head = element("tr");
    columns.forEach((column, i) => {
      const cell = element("th", undefined, { scope: "col" });
      if (column.number) cell.className = "number";
      const button = element("button", column.name, { type: "button" });
      button.addEventListener("click", () => sort(i));
      cell.append(button);
      head.append(cell);
    });
    table.tHead.append(head);
    const body = table.tBodies[0];
    const lines = listed.map((row) => {
      const line = element("tr");
      columns.forEach((column, i) => {
        const value = column.value(row);
        const text = column.text ? column.text(row) : value === null ? "" : String(value);
        const cell = i ? element("td") : element("th", undefined, { scope: "row" });
        if (column.number) cell.className = "number";
        if (!i) cell.append(element("button", text, { type: "button", tabindex: "-1" }));
        else if (column.bar) cell.append(bar(row), text);
        else cell.textContent = text;
        line.append(cell);
      });
      body.append(line);
      return { row, line, button: line.querySelector("button"), text: line.textContent.toLowerCase() };
    });
    const byLine = new Map(lines.map((entry) => [entry.line, entry]));
    if (lines.length) lines[0].button.tabIndex = 0;
    mark(columns.findIndex((column) => column.bar), 1);

    function mark(which, direction) {
      [...head.cells].forEach((cell, i) => {
        if (i === which) cell.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        else cell.removeAttribute("aria-sort");
      });
    }

    function sort(which) {
      const direction = head.cells[which].getAttribute("aria-sort") === "ascending" ? -1 : 1;
      const { value } = columns[which];
      const compared = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
      const missing = (v) => v === null || v === undefined;
      lines.sort((one, two) => {
        const [a, b] = [value(one.row), value(two.row)];
        return missing(a) || missing(b) ? missing(a) - missing(b) : direction * compared(a, b);
      });
      body.append(...lines.map((entry) => entry.line));
      mark(which, direction);
    }

    function select(entry) {
      for (const { line, button } of lines) {
        button.tabIndex = line === entry.line ? 0 : -1;
        line.classList.toggle("current", line === entry.line);
      }
      ring(entry.row.row);
    }

    body.addEventListener("focusin", (event) => select(byLine.get(event.target.closest("tr"))));
    body.addEventListener("click", (event) => byLine.get(event.target.closest("tr"))?.button.focus());
    body.addEventListener("keydown", (event) => {
      const shown = lines.filter(({ line }) => !line.hidden);
      const at = shown.indexOf(byLine.get(event.target.closest("tr")));
      const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: shown.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      shown[Math.min(Math.max(to, 0), shown.length - 1)]?.button.focus();
    });

    const search = document.getElementById("search");
    const found = document.getElementById("found");
    search.addEventListener("input", () => {
      const wanted = search.value.trim().toLowerCase();
      let n = 0;
      for (const { line, text } of lines) {
        line.hidden = !text.includes(wanted);
        n += !line.hidden;
      }
      found.textContent = wanted ? `${n} of ${lines.length} rows` : "";
      const first = lines.find(({ line }) => !line.hidden);
      if (first && !lines.some(({ line, button }) => !line.hidden && button.tabIndex === 0)) first.button.tabIndex = 0;
    });
  }

  async function drawOthers() {
    for (const [id, spec] of Object.entries(pictures)) {
      if (id !== "rows-picture") await vegaEmbed(document.getElementById(id), spec, options);
    }
  }

  await drawRows();
  await drawOthers();
  if (table) makeList(); // last: every picture that is put in would lay out all its lines again
  document.documentElement.setAttribute("data-drawn", "true");
})();
