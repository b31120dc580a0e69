// The way in for pictures: choose or drop files, send them in pieces.
//
// Each message gets one reply, and the next is only sent after it: a file is never
// one huge message (which would break the connection), and the kernel never holds
// more than one file.

const PIECE = 960 * 1024; // bytes
const PATIENCE = 120000; // ms without a reply

function make(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function inMegabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

function connect(model) {
  let resolve = null;
  const onReply = (message) => resolve?.(message);
  model.on("msg:custom", onReply);
  const ask = (content, buffers = []) =>
    new Promise((done, fail) => {
      const timer = setTimeout(
        () => fail(new Error("no answer from the server: reload this page")),
        PATIENCE,
      );
      resolve = (message) => {
        clearTimeout(timer);
        if (message.kind === "refused") fail(new Error(message.reason));
        else done(message);
      };
      model.send(content, undefined, buffers);
    });
  return { ask, close: () => model.off("msg:custom", onReply) };
}

async function sendFile(ask, file, onProgress) {
  await ask({ kind: "open", name: file.name, size: file.size });
  for (let start = 0; start < file.size; start += PIECE) {
    const piece = await file.slice(start, start + PIECE).arrayBuffer();
    await ask({ kind: "piece" }, [piece]);
    onProgress(piece.byteLength);
  }
  await ask({ kind: "close" });
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

function build(model) {
  const limit = inMegabytes(model.get("max_bytes"));
  const root = make("div", "nebula-drop");
  const input = make("input", "nebula-drop-input");
  Object.assign(input, { type: "file", multiple: true, id: `drop-${Math.random()}` });
  input.accept = model.get("accept");
  const button = make("label", "nebula-button", "Choose pictures");
  button.htmlFor = input.id;
  const hint = make("span", "nebula-drop-hint", "or drop them here");
  const small = make("p", "nebula-drop-formats");
  small.textContent =
    "JPEG, PNG, WebP, TIFF, GIF, BMP, HEIC or FITS, " +
    `up to ${limit} each, ${model.get("max_files")} at once`;
  small.id = `${input.id}-help`;
  input.setAttribute("aria-label", "Choose pictures");
  input.setAttribute("aria-describedby", small.id);
  const problems = make("ul", "nebula-problems");
  problems.setAttribute("role", "alert");
  const bar = make("progress", "nebula-progress");
  bar.setAttribute("aria-label", "pictures sent");
  bar.hidden = true;
  const status = make("p", "nebula-status");
  status.setAttribute("role", "status");
  root.append(input, button, hint, small, problems, bar, status);
  return { root, input, problems, bar, status };
}

function render({ model, el }) {
  const { root, input, problems, bar, status } = build(model);
  const { ask, close } = connect(model);
  let isBusy = false;
  const releaseKeys = keepKeys(el);
  el.append(root);

  const complain = (text) => problems.append(make("li", "", text));
  const showStatus = () => (status.textContent = model.get("status"));
  model.on("change:status", showStatus);
  showStatus();

  function choose(files) {
    const most = model.get("max_files");
    const limit = model.get("max_bytes");
    if (files.length > most) {
      complain(`${files.length} files are too many: the first ${most} are taken`);
    }
    return [...files].slice(0, most).filter((file) => {
      if (file.size <= limit) return true;
      const size = inMegabytes(file.size);
      complain(`${file.name}: not sent, ${size} is above ${inMegabytes(limit)}`);
      return false;
    });
  }

  async function upload(given) {
    if (isBusy || !given.length) return;
    problems.replaceChildren();
    const files = choose(given);
    if (!files.length) return;
    isBusy = true;
    bar.hidden = false;
    bar.value = 0;
    bar.max = Math.max(1, files.reduce((sum, file) => sum + file.size, 0));
    try {
      await ask({ kind: "begin", n: files.length });
      for (const file of files) {
        try {
          await sendFile(ask, file, (bytes) => (bar.value += bytes));
        } catch (error) {
          complain(`${file.name}: ${error.message}`);
        }
      }
      await ask({ kind: "end" });
    } catch (error) {
      complain(error.message);
    }
    bar.hidden = true;
    isBusy = false;
  }

  input.addEventListener("change", async () => {
    await upload(input.files);
    input.value = ""; // so that the same file can be chosen again
  });
  const highlight = (on) => (event) => {
    event.preventDefault();
    event.stopPropagation();
    root.classList.toggle("nebula-drop-over", on);
  };
  root.addEventListener("dragover", highlight(true));
  root.addEventListener("dragleave", highlight(false));
  root.addEventListener("drop", (event) => {
    highlight(false)(event);
    upload(event.dataTransfer.files);
  });
  return () => {
    close();
    releaseKeys();
    model.off("change:status", showStatus);
  };
}

export default { render };
