"use strict";
// One canvas of exactly the model's size is the source, whether drawn, picked or uploaded;
// every change of it is translated by each chosen model, the latest drawing wins.

const $ = (selector, within = document) => within.querySelector(selector);
const canvas = $("#canvas");
const paper = canvas.getContext("2d", { willReadFrequently: true });
const slots = [...document.querySelectorAll(".model")].map((card) => ({
  card, model: null, wanted: 0, shown: 0, busy: false, made: null, url: null,
}));
const UNDO = 50;
const MOST = 4096; // px of a side of a saved picture
let models = [];
let colour = "#000000";
let undone = [];
let stroke = null; // {x, y, before} while the pen is down
let pen = null; // [x, y], where the keyboard's pen is
let shape = null; // [width, height] of what was uploaded: the model sees its own size, the page shows this shape

const tool = () => $("input[name=tool]:checked").value;
const path = (model, ...rest) => ["/models", model.cell, model.translator, ...rest].join("/");

function say(text, bad = false) {
  $("#message").textContent = text;
  $("#message").classList.toggle("bad", bad);
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// What the server refuses, it refuses with a reason.
async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer; is `repix demo` still running?");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Error(said.error || `HTTP ${answer.status}`);
}

// Translating

function changed() {
  document.body.dataset.settled = "no";
  for (const slot of slots) if (slot.model) { slot.wanted += 1; run(slot); }
}

async function run(slot) {
  if (slot.busy) return; // comes back for the latest when done
  slot.busy = true;
  while (slot.shown !== slot.wanted) {
    const now = slot.wanted, model = slot.model;
    try {
      const source = await new Promise((done) => canvas.toBlob(done, "image/png"));
      const answer = await ask(path(model, "translate"), { method: "POST", body: source });
      const made = await answer.blob();
      const spent = /dur=([\d.]+)/.exec(answer.headers.get("Server-Timing") || "");
      if (slot.model === model) show(slot, made, spent ? `${Number(spent[1]).toFixed(1)} ms in onnxruntime` : "");
    } catch (error) {
      slot.card.classList.add("failed");
      $(".told button", slot.card).hidden = true;
      $(".caption", slot.card).textContent = error.message;
    }
    slot.shown = now;
  }
  slot.busy = false;
  // For whoever waits for the pictures to be those of the latest drawing.
  if (!slots.some((one) => one.busy)) document.body.dataset.settled = "yes";
}

function show(slot, made, caption) {
  slot.card.classList.remove("failed");
  if (slot.url) URL.revokeObjectURL(slot.url);
  slot.made = made;
  slot.url = URL.createObjectURL(made);
  $("img", slot.card).src = slot.url;
  $(".caption", slot.card).textContent = caption;
  $(".told button", slot.card).hidden = false;
}

// Give a file to the browser to save.
function save(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// A translation as the model made it; that of an upload in the upload's shape, no side smaller than the model's.
async function saveTranslation(slot) {
  const made = slot.made, name = `${slot.model.cell}-${slot.model.translator}.png`;
  if (!shape) return save(made, name);
  const [width, height] = shape, most = MOST / Math.max(width, height);
  const scale = Math.min(most, Math.max(canvas.width / width, canvas.height / height));
  const copy = new OffscreenCanvas(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  const drawn = copy.getContext("2d"), bitmap = await createImageBitmap(made);
  drawn.imageSmoothingQuality = "high";
  drawn.drawImage(bitmap, 0, 0, copy.width, copy.height);
  bitmap.close();
  return save(await copy.convertToBlob({ type: "image/png" }), name);
}

for (const slot of slots) {
  const button = $(".told button", slot.card);
  button.addEventListener("click", () => saveTranslation(slot).catch((error) => say(error.message, true)));
}

// Drawing

function at(event) {
  const box = canvas.getBoundingClientRect();
  const place = (value, length) => Math.max(0, Math.min(length - 1, Math.floor(value)));
  return [
    place(((event.clientX - box.left) / box.width) * canvas.width, canvas.width),
    place(((event.clientY - box.top) / box.height) * canvas.height, canvas.height),
  ];
}

const snapshot = () => ({ pixels: paper.getImageData(0, 0, canvas.width, canvas.height), shape });

function restore(before) {
  paper.putImageData(before.pixels, 0, 0);
  setShape(before.shape);
}

function setShape(size) {
  shape = size;
  const [width, height] = size || [canvas.width, canvas.height];
  document.body.style.setProperty("--ratio", width / height);
}

function remember(before) {
  undone.push(before);
  if (undone.length > UNDO) undone.shift();
  $("#undo").disabled = false;
}

function edited() {
  $("#truth").hidden = true; // it belongs to the picked image as it was
  for (const button of $("#examples").children) button.setAttribute("aria-pressed", "false");
  say("");
  changed();
}

// Squares on whole pixels: a smoothed edge would be colours that no label has.
function dab(x, y) {
  const width = Number($("#width").value), half = Math.floor(width / 2);
  paper.fillRect(x - half, y - half, width, width);
}

function line(x0, y0, x1, y1) {
  const steps = Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0), 1);
  for (let i = 0; i <= steps; i += 1) dab(Math.round(x0 + ((x1 - x0) * i) / steps), Math.round(y0 + ((y1 - y0) * i) / steps));
}

function fill(x, y) {
  const image = snapshot().pixels, data = new Uint32Array(image.data.buffer), { width, height } = canvas;
  paper.fillRect(x, y, 1, 1);
  const [ink] = new Uint32Array(paper.getImageData(x, y, 1, 1).data.buffer);
  const old = data[y * width + x], open = [y * width + x];
  if (ink === old) return;
  while (open.length) {
    const place = open.pop();
    if (data[place] !== old) continue;
    data[place] = ink;
    const column = place % width;
    if (column > 0) open.push(place - 1);
    if (column < width - 1) open.push(place + 1);
    if (place >= width) open.push(place - width);
    if (place < width * (height - 1)) open.push(place + width);
  }
  paper.putImageData(image, 0, 0);
}

function penDown(x, y) {
  stroke = { x, y, before: snapshot() };
  paper.fillStyle = colour;
  if (tool() === "fill") fill(x, y);
  else if (tool() === "brush") dab(x, y);
  else paper.fillRect(x, y, 1, 1);
  edited();
}

function penMoves(x, y) {
  if (!stroke || tool() === "fill") return;
  if (tool() === "brush") {
    line(stroke.x, stroke.y, x, y);
    [stroke.x, stroke.y] = [x, y];
  } else {
    restore(stroke.before);
    const left = Math.min(x, stroke.x), top = Math.min(y, stroke.y);
    paper.fillRect(left, top, Math.abs(x - stroke.x) + 1, Math.abs(y - stroke.y) + 1);
  }
  edited();
}

function penUp() {
  if (!stroke) return;
  remember(stroke.before);
  stroke = null;
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return; // a second finger draws nothing
  penUp(); // the keyboard's
  $("#pen").hidden = true;
  canvas.setPointerCapture(event.pointerId);
  penDown(...at(event));
});
canvas.addEventListener("pointermove", (event) => {
  if (event.isPrimary && canvas.hasPointerCapture(event.pointerId)) penMoves(...at(event));
});
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => { if (event.isPrimary) penUp(); });
canvas.addEventListener("blur", penUp);

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const way = WAYS[event.key], whole = [canvas.width, canvas.height];
  pen ||= whole.map((length) => Math.floor(length / 2));
  if (way) {
    pen = pen.map((place, axis) => {
      const far = event.shiftKey ? Math.max(2, Math.round(whole[axis] / 16)) : 1;
      return Math.max(0, Math.min(whole[axis] - 1, place + way[axis] * far));
    });
    penMoves(...pen);
    if (!stroke) say(`Pen at ${pen.join(", ")}`);
  } else if (event.key === " " || event.key === "Enter") {
    if (event.repeat) { /* held down: once is enough */ }
    else if (stroke) { penUp(); say("Pen up"); }
    else {
      penDown(...pen);
      if (tool() === "fill") penUp();
      else say("Pen down");
    }
  } else if (event.key === "Escape" && stroke) {
    restore(stroke.before);
    stroke = null;
    edited();
  } else return;
  event.preventDefault();
  showPen();
});
canvas.addEventListener("blur", () => { $("#pen").hidden = true; });
canvas.addEventListener("focus", () => {
  if (!canvas.matches(":focus-visible")) return; // a pointer needs no pen, and no word on it
  showPen();
  say($("#keys").textContent);
});

function showPen() {
  pen ||= [canvas.width, canvas.height].map((length) => Math.floor(length / 2));
  const at = $("#pen"), [x, y] = pen;
  for (const [key, value] of Object.entries({
    left: x / canvas.width, top: y / canvas.height, width: 1 / canvas.width, height: 1 / canvas.height,
  })) at.style[key] = `${value * 100}%`;
  at.hidden = false;
}

$("#undo").addEventListener("click", () => {
  penUp();
  const before = undone.pop();
  $("#undo").disabled = !undone.length;
  if (before) { restore(before); edited(); }
});
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") {
    event.preventDefault();
    $("#undo").click();
  }
});
$("#clear").addEventListener("click", () => {
  remember(snapshot());
  blank();
  edited();
});
for (const input of document.querySelectorAll("input[name=tool]")) input.addEventListener("change", showWidth);

function showWidth() { $("#width-label").hidden = tool() !== "brush"; }

function blank() {
  paper.fillStyle = slots[0].model.colours[0].colour;
  paper.fillRect(0, 0, canvas.width, canvas.height);
  setShape(null);
}

// Picking, uploading, saving

let asked = 0; // the last click counts, not the last answer

// Return a function that tells whether what is asked for now is still wanted, and the canvas of its kind.
function latest(model) {
  const mine = ++asked;
  return () => mine === asked && fits(model, slots[0].model);
}

// Draw an image unless it is wanted no more; return whether it was.
async function put(blob, wanted, size = null) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  if (!wanted()) {
    bitmap.close();
    return false;
  }
  penUp();
  remember(snapshot());
  paper.drawImage(bitmap, 0, 0);
  bitmap.close();
  setShape(size);
  edited();
  return true;
}

async function pick(number) {
  const model = slots[0].model, wanted = latest(model);
  try {
    const blob = await (await ask(path(model, "examples", number, "source"))).blob();
    if (!await put(blob, wanted)) return;
    $("#examples").children[number]?.setAttribute("aria-pressed", "true");
    if (model.paired) {
      $("#truth img").src = path(model, "examples", number, "target");
      $("#truth").hidden = false;
    }
  } catch (error) {
    if (wanted()) say(error.message, true);
  }
}

async function upload(file) {
  const model = slots[0].model, wanted = latest(model);
  if (!model) return; // the page has said why
  say(`Reading ${file.name} …`);
  try {
    const answer = await ask(path(model, "fit"), { method: "POST", body: file });
    const was = answer.headers.get("X-Size"), is = `${model.width} x ${model.height}`;
    const [width, height] = was.split(" x ").map(Number);
    const same = width * model.height === height * model.width;
    if (!await put(await answer.blob(), wanted, same ? null : [width, height])) return;
    const resized = `${file.name}, resized from ${was} to ${is}${same ? "" : " for the model; shown in its own shape"}`;
    say(was === is ? `${file.name}, ${is}` : resized);
  } catch (error) {
    if (wanted()) say(`${file.name}: ${error.message}`, true);
  }
}

$("#file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (file) await upload(file);
  event.target.value = ""; // so that the same file can be chosen again
});
canvas.addEventListener("dragover", (event) => event.preventDefault());
canvas.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) upload(file);
});
$("#save").addEventListener("click", () => canvas.toBlob((blob) => save(blob, "source.png"), "image/png"));

// The models

const fits = (one, other) => ["dataset", "translator", "width", "height", "channels"].every((key) => one[key] === other[key]);

function facts(model) {
  const box = element("div");
  box.append(element("h3", {}, model.n ? `Test scores, n = ${model.n}` : "Test scores"));
  if (model.unscored) box.append(element("small", {}, model.unscored));
  const arrows = { lower: "↓", higher: "↑" };
  const rows = model.metrics.map(({ name, value, ci95, better }) => element("tr", {},
    element("th", { scope: "row", title: better ? `${better} is better` : "" }, `${name.toUpperCase()} ${arrows[better] || ""}`),
    element("td", {}, value.toPrecision(4)),
    element("td", { class: "soft", title: "95 % interval over images" }, ci95 ? `${ci95[0].toPrecision(3)} – ${ci95[1].toPrecision(3)}` : "")));
  if (rows.length) box.append(element("table", {}, element("tbody", {}, ...rows)));
  const list = element("dl");
  for (const { name, value } of model.lineage) {
    // Digests are for comparing: the first digits here, all of them on hover.
    const short = value.replace(/^([0-9a-f]{12})[0-9a-f]{28,}/, "$1…");
    list.append(element("dt", {}, name), element("dd", { title: value }, short));
  }
  box.append(element("details", { open: "" }, element("summary", {}, "Lineage"), list));
  if (model.card) box.append(element("a", { href: path(model, "card"), target: "_blank", rel: "noopener" }, "Model card"));
  return box;
}

function choose(slot, key) {
  slot.model = models.find((model) => model.key === key) || null;
  slot.card.classList.toggle("empty", !slot.model);
  $(".facts", slot.card).replaceChildren(...(slot.model ? [facts(slot.model)] : []));
  if (slot.url) URL.revokeObjectURL(slot.url);
  slot.url = null;
  $("img", slot.card).removeAttribute("src");
  $(".told button", slot.card).hidden = true;
  $(".caption", slot.card).textContent = "";
}

function chooseFirst(key) {
  const before = slots[0].model;
  choose(slots[0], key);
  const model = slots[0].model;
  if (before && fits(before, model)) { offerSecond(); changed(); return; }
  say(""); // of an image for another kind
  [canvas.width, canvas.height] = [model.width, model.height];
  $("#examples").style.setProperty("--ratio", model.width / model.height);
  pen = null;
  $("#size").textContent = `${model.width} x ${model.height} px`;
  $("#width").max = Math.max(4, Math.round(model.width / 5));
  $("#width").value = Math.max(1, Math.round(model.width / 20));
  undone = [];
  palette(model);
  blank();
  offerSecond();
  offerExamples(model);
  $("#truth").hidden = true;
  if (model.examples) pick(0).then(() => { undone = []; $("#undo").disabled = true; });
  else changed();
}

function palette(model) {
  const ink = Math.min(1, model.colours.length - 1); // the first is what Clear leaves
  const swatches = model.colours.map(({ colour: code, name }, index) => {
    const input = element("input", { type: "radio", name: "colour", value: code, "aria-label": name });
    input.addEventListener("change", () => { colour = code; });
    input.checked = index === ink;
    const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const square = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [key, value] of [["width", "100%"], ["height", "100%"], ["fill", code]]) square.setAttribute(key, value);
    picture.append(square);
    return element("label", { class: "swatch" }, input, picture, element("span", {}, name));
  });
  colour = model.colours[ink].colour;
  $("#palette").replaceChildren(...swatches);
}

function offerSecond() {
  const [first, second] = slots;
  const others = models.filter((model) => model !== first.model && fits(model, first.model));
  const kept = others.includes(second.model) ? second.model.key : "";
  const none = models.length > 1 && !others.length ? "No second model of this kind" : others.length ? "No second model" : "";
  $("select", second.card).replaceChildren(
    element("option", { value: "" }, none), ...others.map((model) => element("option", { value: model.key }, model.cell)));
  second.card.hidden = models.length < 2;
  $("select", second.card).value = kept;
  if (!kept) choose(second, "");
}

function offerExamples(model) {
  $("#examples-section").hidden = !model.examples;
  $("#examples").replaceChildren(...Array.from({ length: model.examples }, (_, number) => {
    const button = element("button", { type: "button", "aria-pressed": "false", "aria-label": `Test image ${number + 1}` },
      element("img", { src: path(model, "examples", number, "source"), alt: "" }));
    button.addEventListener("click", () => pick(number));
    return button;
  }));
}

async function start() {
  showWidth();
  const told = await (await ask("/models")).json();
  models = told.models;
  $("#left-out").textContent = told.left_out.length ? `Not shown: ${told.left_out.join("; ")}` : "";
  const named = (model) => (model.translator === "source_to_target" ? model.cell : `${model.cell} (${model.translator})`);
  const select = $("select", slots[0].card);
  select.append(...models.map((model) => element("option", { value: model.key }, named(model))));
  select.addEventListener("change", () => chooseFirst(select.value));
  const second = $("select", slots[1].card);
  second.addEventListener("change", () => { choose(slots[1], second.value); changed(); });
  chooseFirst(select.value);
}

start().catch((error) => say(error.message, true));
