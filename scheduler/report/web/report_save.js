// Each chart as a file for a paper: SVG, or PNG at three times its size; in the light colours, whatever the screen has.

const KEPT = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "font-size", "font-family", "text-anchor", "visibility"];
const PNG_SCALE = 3;

function svgOf(box) { // the chart as the text of a file of its own, with its title and legend; null if nothing is drawn
  const drawn = box.querySelector("svg");
  if (!drawn) return null;
  const root = document.documentElement, alone = box.id === "waste"; // bars that are told apart by kind, not by policy
  const legend = alone ? WASTE.map(([name, colour], k) => [name, colour, k]).filter(([, , k]) => runs.some((run) => run.waste[k] > 0))
    : runs.map((run, i) => [run.policy, `--p${i % 8}`, i]).filter(([, , i]) => shown[i]);
  root.dataset.paper = "yes";
  const copy = drawn.cloneNode(true), from = drawn.querySelectorAll("*"), to = copy.querySelectorAll("*");
  for (let i = 0; i < from.length; i++) {
    const style = getComputedStyle(from[i]);
    to[i].removeAttribute("class");
    to[i].setAttribute("style", KEPT.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
  }
  const font = getComputedStyle(root).fontFamily, colours = legend.map(([, colour]) => getComputedStyle(root).getPropertyValue(colour).trim());
  delete root.dataset.paper;
  const width = Number(drawn.getAttribute("width")), height = Number(drawn.getAttribute("height")), lines = [[]];
  let x = 8;
  for (const [place, [name]] of legend.entries()) { // as many names a line as fit
    const wide = 34 + textWidth([name]);
    if (x + wide > width && lines.at(-1).length) { lines.push([]); x = 8; }
    lines.at(-1).push([x, name, colours[place]]);
    x += wide;
  }
  const head = 24 + 18 * lines.length, file = svg("svg", null, { width, height: height + head, viewBox: `0 0 ${width} ${height + head}` });
  svg("rect", file, { width, height: height + head, fill: "#ffffff" });
  const caption = box.closest("figure").querySelector("figcaption").firstChild.textContent.trim();
  svg("text", file, { x: 8, y: 16, style: `font:600 14px ${font};fill:#1b2430` }, caption);
  for (const [line, entries] of lines.entries()) {
    for (const [at, name, colour] of entries) {
      svg("rect", file, { x: at, y: 26 + 18 * line, width: 12, height: 10, fill: colour });
      svg("text", file, { x: at + 17, y: 35 + 18 * line, style: `font:12px ${font};fill:#1b2430` }, name);
    }
  }
  const chart = svg("g", file, { transform: `translate(0 ${head})` });
  chart.append(...copy.childNodes);
  return new XMLSerializer().serializeToString(file);
}

function pngOf(text) { // a promise of the picture, as a Blob
  return new Promise((done, failed) => {
    const picture = new Image();
    picture.onload = () => {
      const canvas = html("canvas");
      canvas.width = picture.width * PNG_SCALE;
      canvas.height = picture.height * PNG_SCALE;
      canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(done, "image/png");
    };
    picture.onerror = () => failed(new Error("the picture could not be drawn"));
    picture.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  });
}

function save(blob, name) {
  const link = html("a"), place = URL.createObjectURL(blob);
  link.href = place;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(place), 10000);
}

function savers() {
  for (const box of document.querySelectorAll("figure .chart")) {
    const tools = html("span", box.closest("figure").querySelector("figcaption"));
    tools.className = "save";
    for (const form of ["SVG", "PNG"]) {
      const button = html("button", tools, form);
      button.type = "button";
      button.title = `save this chart as ${form}`;
      button.addEventListener("click", async () => {
        const text = svgOf(box);
        if (text !== null) save(form === "SVG" ? new Blob([text], { type: "image/svg+xml" }) : await pngOf(text), `${box.id}.${form.toLowerCase()}`);
      });
    }
  }
}
