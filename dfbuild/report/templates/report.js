"use strict";
// Everything works without this; it only hides what does not match.
const box = document.getElementById("filter");
box.parentElement.hidden = false;
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const one of document.querySelectorAll("[data-text]")) {
    const text = one.dataset.text.toLowerCase();
    one.hidden = !words.every((word) => text.includes(word));
  }
});
// A link to a closed cell opens it.
const reveal = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") target.open = true;
};
addEventListener("hashchange", reveal);
reveal();
