const { rows, lines, shifts } = JSON.parse(document.getElementById("data").textContent);
const STEP = 100; // rows drawn at once: sorting and filtering stay instant with thousands
const $ = (id) => document.getElementById(id);
const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const escape = (text) => String(text).replace(/[&<>"]/g, (character) => escapes[character]);
const percent = (value) => (value === null ? "–" : (100 * value).toFixed(1));
const points = (value) => (value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`);
const thousands = (number) => number.toLocaleString("en-US");

const columns = [
  { title: "Model", value: (row) => row.model.toLowerCase(), text: true },
  { title: "ER,<br>5 shifts", value: (row) => row.five && row.five.er, entry: "five" },
  { title: "ER,<br>4 shifts", value: (row) => row.four && row.four.er, entry: "four" },
  { title: "ImageNet,<br>%", value: (row) => row.imagenet },
  ...shifts.map((title, place) => ({
    title: `${title},<br>%`,
    value: (row) => row.accuracies[place],
    style: "accuracy",
  })),
];
rows.forEach((row, index) => {
  row.index = index;
  row.words = `${row.model} ${row.source}`.toLowerCase();
});

let order = { column: 1, down: true };
let visible = [];
let drawn = 0;
let target = -1;
const open = new Set();

function marks(row, entry) {
  return (entry.extrapolated ? "*" : "") + (row.marked ? "†" : "") + (entry.consistent ? "" : "‡");
}

function interval(entry) {
  return entry.low === null ? "no interval" : `${points(entry.low)} to ${points(entry.high)}`;
}

function entryCell(row, entry) {
  if (!entry) return "<td>–</td>";
  return `<td><span class="er">${points(entry.er)}</span>${marks(row, entry)}<small>${interval(entry)}</small></td>`;
}

function describe(row) {
  const table = row.lines.map((entry) => {
    const notes = [
      entry.extrapolated && "* extrapolated",
      !entry.consistent && `‡ fitted with ImageNet-V2 ${lines[entry.line].v2}`,
    ].filter(Boolean);
    return `<tr><th scope="row">${escape(lines[entry.line].name)}</th><td>${lines[entry.line].shifts}</td>
      <td>${points(entry.er)}</td><td>${interval(entry)}</td><td>${escape(notes.join("; "))}</td></tr>`;
  });
  const twins = row.twins.map((index) => {
    const twin = rows[index];
    const column = row.five && twin.five ? "five" : "four";
    const found = `ER over ${column} shifts ${points(twin[column].er)}, here ${points(row[column].er)}`;
    return `<p>The same name, or the same weights by a known name, in another source: <a href="#row-${index}">${escape(twin.model)}, ${escape(twin.source)}</a>
      (${found}; ImageNet ${percent(twin.imagenet)}, here ${percent(row.imagenet)}).</p>`;
  });
  const sizes = row.sizes.length ? ` Image size: ${row.sizes.join(", ")} pixels.` : "";
  const accuracies = shifts.map((title, place) => `${title} ${percent(row.accuracies[place])}`).join(", ");
  return `<tr class="detail"><td colspan="${columns.length}">
    <p>Source: ${escape(row.path)}, ${escape(row.date)}. ImageNet-V2 ${escape(row.v2)}. n: ${thousands(row.n)} images.${sizes}${
      row.marked ? " <b>† ImageNet and the shifts were run at different image sizes.</b>" : ""
    }</p>
    <p>Accuracies, %: ImageNet ${percent(row.imagenet)}, ${escape(accuracies)}; mean of ${row.five ? 5 : 4} shifts ${percent(row.mean)}.</p>
    ${twins.join("")}
    <table><thead><tr><th scope="col">Line</th><th scope="col">Shifts</th><th scope="col">ER</th><th scope="col">95 % interval</th><th scope="col">Note</th></tr></thead>
    <tbody>${table.join("")}</tbody></table></td></tr>`;
}

function renderRow(row) {
  const isOpen = open.has(row.index);
  const several = row.twins.length ? ` <a class="chip" href="#row-${row.twins[0]}">${row.twins.length + 1} sources</a>` : "";
  const cells = columns.slice(1).map((column) =>
    column.entry
      ? entryCell(row, row[column.entry])
      : `<td class="${column.style || ""}">${percent(column.value(row))}</td>`,
  );
  return `<tr id="row-${row.index}"${row.index === target ? ' class="target"' : ""}><th scope="row">
    <button type="button" aria-expanded="${isOpen}" data-index="${row.index}">${escape(row.model)}</button>
    <small>${escape(row.source)} · ${escape(row.date)}${several}</small></th>${cells.join("")}</tr>${isOpen ? describe(row) : ""}`;
}

function draw(from) {
  const to = Math.min(Math.max(drawn, STEP), visible.length);
  const html = visible.slice(from, to).map(renderRow).join("");
  if (from) $("rows").insertAdjacentHTML("beforeend", html);
  else $("rows").innerHTML = html;
  drawn = to;
  const rest = visible.length - to;
  $("more").hidden = rest <= 0;
  $("more").textContent = `Show ${Math.min(rest, STEP)} more of ${thousands(rest)}`;
}

function matches(row, words) {
  return (
    words.every((word) => row.words.includes(word)) &&
    (!$("source").value || row.source === $("source").value) &&
    (!$("shifts").value || ($("shifts").value === "five") === Boolean(row.five)) &&
    !($("unmarked").checked && row.marked) &&
    !($("inside").checked && (row.five || row.four).extrapolated) &&
    !($("several").checked && !row.twins.length)
  );
}

function update() {
  const words = $("text").value.toLowerCase().split(/\s+/).filter(Boolean);
  const { value, text } = columns[order.column];
  const sign = order.down ? -1 : 1;
  visible = rows.filter((row) => matches(row, words));
  const keys = new Map(visible.map((row) => [row, value(row)]));
  visible.sort((a, b) => {
    const [x, y] = [keys.get(a), keys.get(b)];
    if (x === null || y === null) return (x === null) - (y === null) || a.index - b.index; // the last
    return x === y ? a.index - b.index : sign * (x < y ? -1 : 1);
  });
  document.querySelectorAll("#titles th").forEach((title, place) => {
    if (place === order.column) title.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    else title.removeAttribute("aria-sort");
  });
  const lacking = text ? 0 : visible.filter((row) => keys.get(row) === null).length;
  $("count").textContent =
    `${thousands(visible.length)} of ${thousands(rows.length)} models` +
    (lacking ? `; ${thousands(lacking)} without a value in this column come last` : "");
  drawn = 0;
  draw(0);
}

function show(index) {
  const row = rows[index];
  if (!row) return;
  target = index;
  if (!visible.includes(row)) {
    $("filters").reset();
    update();
  }
  open.add(index);
  drawn = Math.max(drawn, visible.indexOf(row) + 1);
  draw(0);
  $(`row-${index}`).scrollIntoView({ block: "center", behavior: "instant" });
}

const followHash = () => {
  const found = /^#row-(\d+)$/.exec(location.hash);
  if (found) show(Number(found[1]));
};

$("titles").innerHTML = columns
  .map(
    (column, place) =>
      `<th scope="col" class="${column.text ? "" : "number"} ${column.style || ""}"><button type="button" data-column="${place}">${column.title}</button></th>`,
  )
  .join("");
for (const source of new Set(rows.map((row) => row.source))) $("source").add(new Option(source));

$("titles").addEventListener("click", ({ target: { dataset }, target: element }) => {
  const column = dataset.column ?? element.closest("button")?.dataset.column;
  if (column === undefined) return;
  const place = Number(column);
  order = { column: place, down: place === order.column ? !order.down : !columns[place].text };
  update();
});
$("rows").addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  if (link && link.getAttribute("href") === location.hash) followHash();
  const button = event.target.closest("button[data-index]");
  if (!button) return;
  const index = Number(button.dataset.index);
  const tr = $(`row-${index}`);
  if (open.delete(index)) tr.nextElementSibling.remove();
  else {
    open.add(index);
    tr.insertAdjacentHTML("afterend", describe(rows[index]));
  }
  button.setAttribute("aria-expanded", String(open.has(index)));
});
$("more").addEventListener("click", () => {
  const from = drawn;
  drawn += STEP;
  draw(from);
});
$("filters").addEventListener("input", update);
window.addEventListener("hashchange", followHash);
update();
followHash();
