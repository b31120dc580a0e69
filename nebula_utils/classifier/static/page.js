// The ways in for pictures (choose, drop, paste, built-in ones, a path), in one queue;
// the sliders and tables of the answers; and a word when the page has gone to sleep.
//
// Each message gets one reply, and the next of the queue is only sent after it: a file
// is never one huge message (which would break the connection), and the kernel never
// holds more than one file.

const PIECE = 960 * 1024; // bytes
const PATIENCE = 180000; // ms without a reply to what may take long
const PULSE = 25000; // ms between two signs of life of a served page
const PULSE_PATIENCE = 20000; // ms without a reply to one, while nothing is worked on
const AWAKE = 30 * 60 * 1000; // ms without a key or a touch until the page sleeps

function make(tag, className, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function inMegabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

function connect(model) {
  const waiting = new Map();
  let last = 0;
  const onMessage = (message, buffers) => {
    if (message.kind === "save") save(message, buffers[0]);
    else waiting.get(message.token)?.(message);
  };
  model.on("msg:custom", onMessage);
  const ask = (content, buffers = [], patience = PATIENCE) =>
    new Promise((done, fail) => {
      const token = ++last;
      const timer = setTimeout(() => {
        waiting.delete(token);
        fail(new Error("no answer from the server: reload this page"));
      }, patience);
      waiting.set(token, (message) => {
        clearTimeout(timer);
        waiting.delete(token);
        if (message.kind !== "refused") return done(message);
        fail(Object.assign(new Error(message.reason), { isRefusal: true }));
      });
      model.send({ ...content, token }, undefined, buffers);
    });
  return { ask, close: () => model.off("msg:custom", onMessage) };
}

function save({ name, mime }, content) {
  const link = make("a", "", "", { download: name });
  link.href = URL.createObjectURL(new Blob([content], { type: mime }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// --- The queue -----------------------------------------------------------------------

async function sendFile(ask, file, onProgress) {
  await ask({ kind: "open", name: file.name, size: file.size });
  for (let start = 0; start < file.size; start += PIECE) {
    const piece = await file.slice(start, start + PIECE).arrayBuffer();
    await ask({ kind: "piece" }, [piece]);
    onProgress(piece.byteLength);
  }
  await ask({ kind: "close" });
}

function makeQueue(ask, { problems, bar, cancel }) {
  let items = [];
  let isBusy = false;

  async function sendOne(item) {
    if (!(item instanceof File)) return ask(item);
    return sendFile(ask, item, (bytes) => (bar.value += bytes));
  }

  async function work() {
    isBusy = true;
    bar.hidden = cancel.hidden = false;
    bar.value = bar.max = 0;
    for (const item of items) bar.max += item.size ?? 1;
    problems.replaceChildren();
    let left = 0;
    try {
      await ask({ kind: "begin" });
      while (items.length) {
        const item = items.shift();
        await sendOne(item).catch((error) => {
          if (!error.isRefusal) throw error; // nobody is there any more
          if (item instanceof File) return; // it stands among the answers
          problems.append(make("li", "", error.message));
        });
        if (cancel.wanted) {
          left = items.length;
          items = [];
        }
      }
      await ask({ kind: "end", left });
    } catch (error) {
      items = [];
      problems.append(make("li", "", error.message));
    }
    bar.hidden = cancel.hidden = true;
    isBusy = cancel.wanted = false;
  }

  const add = (more) => {
    if (!more.length) return;
    items.push(...more);
    if (isBusy) for (const item of more) bar.max += item.size ?? 1;
    else work();
  };
  cancel.addEventListener("click", () => (cancel.wanted = true));
  return { add, isBusy: () => isBusy };
}

// --- Files from a drop, with folders ---------------------------------------------------

async function listFiles(entry) {
  if (entry.isFile) return [await new Promise((ok, no) => entry.file(ok, no))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((ok, no) => reader.readEntries(ok, no));
    if (!some.length) break;
    found.push(...some);
  }
  const visible = found.filter((one) => !/^(\.|__MACOSX)/.test(one.name));
  visible.sort((a, b) => a.name.localeCompare(b.name));
  return (await Promise.all(visible.map(listFiles))).flat();
}

async function readDrop(transfer, suffixes) {
  const entries = [...(transfer.items ?? [])].map((i) => i.webkitGetAsEntry?.());
  if (!entries.some((entry) => entry?.isDirectory)) return [...transfer.files];
  const found = (await Promise.all(entries.filter(Boolean).map(listFiles))).flat();
  return found.filter((f) => suffixes.some((s) => f.name.toLowerCase().endsWith(s)));
}

// --- What makes answers live: sliders between picture and map, tables ------------------

function sortTable(button) {
  const table = button.closest("table");
  const head = button.closest("th");
  const column = [...head.parentElement.children].indexOf(head);
  const isDown = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
  const key = (row) => {
    const cell = row.children[column];
    return cell ? (cell.dataset.key ?? cell.innerText) : "";
  };
  const rows = [...table.tBodies[0].rows].sort((a, b) =>
    key(a).localeCompare(key(b), undefined, { numeric: true }),
  );
  table.tBodies[0].append(...(isDown ? rows.reverse() : rows));
}

function enliven(app, ask) {
  const onInput = ({ target }) => {
    if (target.matches(".nebula-blend")) {
      const over = target.closest(".nebula-map").querySelector(".nebula-over");
      over.style.opacity = target.value / 100;
    }
    if (target.matches(".nebula-filter")) {
      const table = target.closest(".widget-html-content").querySelector("table");
      table.classList.toggle("nebula-only-unsure", target.checked);
    }
  };
  const onClick = ({ target }) => {
    const sort = target.closest(".nebula-sort");
    if (sort) sortTable(sort);
    const row = target.closest(".nebula-table tbody tr");
    const open = row?.querySelector(".nebula-open");
    if (open) {
      for (const other of row.parentElement.children) other.classList.remove("nebula-on");
      row.classList.add("nebula-on");
      ask({ kind: "row", index: Number(open.dataset.row) })
        .then(() => app.querySelector(".nebula-answer")?.scrollIntoView())
        .catch(() => {});
    }
  };
  app.addEventListener("input", onInput);
  app.addEventListener("click", onClick);
  return () => {
    app.removeEventListener("input", onInput);
    app.removeEventListener("click", onClick);
  };
}

// --- Signs of life -----------------------------------------------------------------------

function stayAwake(model, ask, root, isBusy) {
  if (!model.get("is_served")) return () => {};
  const note = make("div", "nebula-asleep", "", { role: "alert" });
  const text = "This page has gone to sleep, and its pictures are forgotten. ";
  const reload = make("button", "nebula-button", "Wake it up");
  reload.addEventListener("click", () => location.reload());
  note.append(make("span", "", text), reload);
  let isAsleep = false;
  let lastTouch = Date.now();
  const sleep = () => {
    if (isAsleep) return;
    isAsleep = true;
    clearInterval(timer);
    root.prepend(note);
    document.title = `(asleep) ${document.title}`;
  };
  const pulse = () => {
    if (isAsleep) return;
    if (Date.now() - lastTouch > AWAKE && !isBusy()) return sleep();
    const patience = isBusy() ? PATIENCE : PULSE_PATIENCE;
    ask({ kind: "ping" }, [], patience).catch(() => (isBusy() ? null : sleep()));
  };
  const timer = setInterval(pulse, PULSE);
  const onTouch = () => (lastTouch = Date.now());
  const onReturn = () => document.visibilityState === "visible" && pulse();
  for (const kind of ["pointerdown", "keydown", "dragover"]) {
    document.addEventListener(kind, onTouch, true);
  }
  document.addEventListener("visibilitychange", onReturn);
  // At once where the server says so: it was restarted, or it ended the kernel.
  const kernel = model.widget_manager?.kernel;
  const onStatus = (_, status) => {
    if (["dead", "terminating", "autorestarting"].includes(status)) sleep();
  };
  const onConnection = (_, status) => {
    if (status !== "connected") setTimeout(pulse, 1500);
    if (status === "disconnected") sleep();
  };
  kernel?.statusChanged?.connect(onStatus);
  kernel?.connectionStatusChanged?.connect(onConnection);
  pulse();
  return () => {
    clearInterval(timer);
    for (const kind of ["pointerdown", "keydown", "dragover"]) {
      document.removeEventListener(kind, onTouch, true);
    }
    document.removeEventListener("visibilitychange", onReturn);
    kernel?.statusChanged?.disconnect(onStatus);
    kernel?.connectionStatusChanged?.disconnect(onConnection);
  };
}

// JupyterLab listens on the document, and takes keys for commands of the notebook also
// while one of our buttons has the focus: "d d" would delete the cell with this app in
// it. Keys without Ctrl, Alt or Cmd end here; the browser does with them what it does.
function keepKeys(el) {
  const keep = (event) => {
    const app = el.closest(".nebula-app") ?? el;
    const isCommand = event.ctrlKey || event.altKey || event.metaKey;
    if (app.contains(event.target) && !isCommand) event.stopPropagation();
  };
  document.body.addEventListener("keydown", keep);
  return () => document.body.removeEventListener("keydown", keep);
}

// --- The box ---------------------------------------------------------------------------

function build(model) {
  const limit = inMegabytes(model.get("max_bytes"));
  const root = make("div", "nebula-drop");
  const input = make("input", "nebula-drop-input", "", { "aria-label": "Choose pictures" });
  Object.assign(input, { type: "file", multiple: true, id: `drop-${Math.random()}` });
  // Browsers look at what stands after the last point only.
  const endings = model.get("suffixes").map((s) => s.slice(s.lastIndexOf(".")));
  input.accept = ["image/*", ...endings].join(",");
  const button = make("label", "nebula-button", "Choose pictures");
  button.htmlFor = input.id;
  const hint = make("span", "nebula-drop-hint", "or drop or paste them, or a folder");
  const small = make("p", "nebula-drop-formats");
  small.textContent =
    "JPEG, PNG, WebP, TIFF, GIF, BMP, HEIC, FITS or XISF, " +
    `up to ${limit} each, ${model.get("max_files")} at once`;
  small.id = `${input.id}-help`;
  input.setAttribute("aria-describedby", small.id);
  const problems = make("ul", "nebula-problems", "", { role: "alert" });
  const bar = make("progress", "nebula-progress", "", { "aria-label": "pictures sent" });
  const cancel = make("button", "nebula-cancel", "Cancel");
  bar.hidden = cancel.hidden = true;
  const status = make("p", "nebula-status", "", { role: "status" });
  root.append(input, button, hint, small, problems, bar, cancel, status);
  return { root, input, problems, bar, cancel, status };
}

function buildExamples(names, add) {
  const row = make("div", "nebula-examples");
  row.append(make("span", "nebula-hint", "No picture at hand? Try:"));
  for (const [index, name] of names.entries()) {
    const button = make("button", "nebula-plain", name);
    button.addEventListener("click", () => add([{ kind: "example", index }]));
    row.append(button);
  }
  return row;
}

function buildPath(add) {
  const form = make("form", "nebula-path");
  const label = make("label", "", "Path of a picture or folder on this computer");
  const field = make("input", "", "", { type: "text", "aria-label": "Path" });
  label.append(field);
  form.append(label, make("button", "nebula-plain", "Classify this path"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const path = field.value.trim();
    if (path) add([{ kind: "path", path }]);
  });
  return form;
}

function render({ model, el }) {
  const box = build(model);
  const { root, input, status } = box;
  const { ask, close } = connect(model);
  const queue = makeQueue(ask, box);
  const suffixes = model.get("suffixes");
  el.append(root);
  if (model.get("allow_paths")) el.append(buildPath(queue.add));
  const examples = model.get("examples");
  if (examples.length) el.append(buildExamples(examples, queue.add));
  const showStatus = () => (status.textContent = model.get("status"));
  model.on("change:status", showStatus);
  showStatus();

  input.addEventListener("change", () => {
    queue.add([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
  // In a served page the whole page takes drops and pastes; in JupyterLab, which does
  // things of its own with them, only the app does.
  const isOurs = ({ target }) =>
    model.get("is_served") || (el.closest(".nebula-app") ?? el).contains(target);
  const onDrag = (event) => {
    if (!isOurs(event) || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.stopPropagation();
    root.classList.toggle("nebula-drop-over", event.type === "dragover");
    if (event.type === "drop") readDrop(event.dataTransfer, suffixes).then(queue.add);
  };
  const onPaste = (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length || !isOurs(event)) return;
    event.preventDefault();
    event.stopPropagation();
    queue.add(files);
  };
  const listeners = { dragover: onDrag, dragleave: onDrag, drop: onDrag, paste: onPaste };
  for (const [kind, listener] of Object.entries(listeners)) {
    document.addEventListener(kind, listener, true);
  }

  const endings = [close, keepKeys(el), stayAwake(model, ask, root, queue.isBusy)];
  // The app is put around this box only after it is drawn.
  const timer = setTimeout(() => {
    endings.push(enliven(el.closest(".nebula-app") ?? el, ask));
  });
  return () => {
    clearTimeout(timer);
    for (const [kind, listener] of Object.entries(listeners)) {
      document.removeEventListener(kind, listener, true);
    }
    model.off("change:status", showStatus);
    for (const end of endings) end();
  };
}

export default { render };
