// Bring the page to life: the rows in the HTML stand until here.

function followAddress(board) {
  board.asked = askedFromAddress();
  refresh(board);
  if (board.asked.row) openPanel(board, board.asked.row);
  else if (byId("panel").open) byId("panel").close();
}

function listen(board) {
  byId("more").addEventListener("click", () => showMore(board));
  byId("csv").addEventListener("click", () => saveCsv(board));
  byId("print").addEventListener("click", () => window.print());
  byId("panel").addEventListener("close", () => panelClosed(board));
  byId("panel").addEventListener("click", (event) => {
    if (event.target === byId("panel")) byId("panel").close();
  });
  window.addEventListener("hashchange", () => followAddress(board));
}

function start() {
  const data = readData();
  const board = { data, asked: askedFromAddress(), found: [], shown: 0, texts: [] };
  drawTabs(board);
  drawFilters(board);
  drawSorting(board);
  listen(board);
  for (const part of document.querySelectorAll(".needs-script")) part.hidden = false;
  followAddress(board);
  performance.mark("board-ready");
}

start();
