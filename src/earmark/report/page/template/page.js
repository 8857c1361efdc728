const data = JSON.parse(document.getElementById("data").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");

// Panels stand in as many columns as fit, each of the given width.
function arrange(spec, columns, width) {
  return { ...spec, columns, concat: spec.concat.map((panel) => ({ ...panel, width })) };
}

function embed(place, spec) {
  const theme = dark.matches ? "dark" : "light";
  const columns = place.clientWidth < 480 ? 2 : 0; // a legend in one line is too wide there
  const config = { ...data[theme], legend: { ...data[theme].legend, columns } };
  return vegaEmbed(place, spec, {
    mode: "vega-lite",
    config,
    // Thousands of marks as elements of their own would slow the page.
    renderer: JSON.stringify(spec).length > 3e6 ? "canvas" : "svg",
    tooltip: { theme },
    actions: false,
  });
}

async function draw(place) {
  const spec = data.figures[place.dataset.figure];
  const room = place.clientWidth;
  if (!spec.concat) {
    await embed(place, spec);
    return;
  }
  const columns = spec.usermeta.columns.find((n) => room / n >= 240) ?? 1;
  const guess = Math.round(room / columns) - 90;
  await embed(place, arrange(spec, columns, guess));
  // The width of the labels beside the panels is known once they are drawn.
  const drawn = place.querySelector("svg, canvas");
  const width = Math.floor(guess + (room - Number.parseFloat(drawn.getAttribute("width"))) / columns);
  await embed(place, arrange(spec, columns, width));
}

async function drawAll() {
  for (const place of document.querySelectorAll("[data-figure]")) await draw(place);
}

let width = window.innerWidth;
let waiting;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return; // a phone's address bar came or went
  width = window.innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 200);
});
dark.addEventListener("change", drawAll);
drawAll();
