// The box that messages are written in.

import { at, count } from "./dom.js";

const LONGEST = 8000;
// From this part of the longest length on, the box says how much is left.
const NEAR = 0.8;

// `send(text)` says whether the message was taken. `limit()` is what the service takes at most.
export function watchComposer(send, stop, limit) {
  const field = at("message");
  const longest = () => Math.min(LONGEST, limit());

  function draw() {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
    const length = [...field.value].length;
    const over = length - longest();
    const note = at("length-note");
    note.hidden = length < NEAR * longest();
    note.classList.toggle("wrong", over > 0);
    note.textContent =
      over > 0
        ? `${count(over)} characters too many: ${count(longest())} can be sent at once.`
        : `${count(length)} of ${count(longest())} characters`;
    at("send").disabled = over > 0;
  }

  function submit() {
    if (at("send").disabled || !send(field.value)) return;
    field.value = "";
    draw();
  }

  at("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  });
  field.addEventListener("input", draw);
  at("stop").addEventListener("click", () => {
    stop();
    field.focus();
  });
  return (answering) => {
    at("send").hidden = answering;
    at("stop").hidden = !answering;
  };
}
