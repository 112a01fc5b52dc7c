// Keeps the newest line in view unless the reader has scrolled away.

let atBottom = true;
let scrolling = false;

// Once a frame: to measure the page at each event would lay it out at each event, 20 s for an
// answer of 10,000.
export function followDown() {
  if (scrolling || !atBottom) {
    return;
  }
  scrolling = true;
  requestAnimationFrame(() => {
    scrolling = false;
    document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
  });
}

function noteScroll() {
  const page = document.scrollingElement;
  atBottom = page.scrollHeight - page.scrollTop - page.clientHeight < 80;
}

addEventListener("scroll", noteScroll, { passive: true });
