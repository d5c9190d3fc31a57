"use strict";
// What the other scripts share: storage that may be refused, and elements without any markup.
const Canopy = {
  canKeep: true,
  kept(key) {
    try {
      return localStorage.getItem(key);
    } catch (error) {
      Canopy.canKeep = false;
      return null;
    }
  },
  keep(key, text) {
    try {
      localStorage.setItem(key, text);
      return true;
    } catch (error) {
      Canopy.canKeep = false;
      return false;
    }
  },
  // Text is always set as text: names and ids are not ours and may look like markup.
  html(tag, attributes = {}, text = "") {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== "") element.textContent = text;
    return element;
  },
  svg(tag, attributes = {}, text = "") {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== "") element.textContent = text;
    return element;
  },
  bytes(base64) {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  },
  seconds(value) {
    return value.toFixed(2);
  },
};
