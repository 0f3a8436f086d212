/* The player of mist. Entry point: mistPlay(streamName, options); defaults for all options in window.mistoptions. */
(function () {
"use strict";

/* Fixed choices, in seconds unless named otherwise. */
const TARGET_DELAY = 0.35;      // kept in the buffer at first; each stall asks for more
const MAX_TARGET_DELAY = 2.5;
const SEEK_DELAY = 3;           // further behind than this beyond the target: jump
const KEEP_BEHIND = 12;         // of what was played, before it is dropped
const MAX_AHEAD = 40;           // buffered while paused, before the download ends
const MAX_QUEUE_BYTES = 32e6;
const STALL_TIMEOUT = 10;       // no byte for so long: connect again
const RETRY_FIRST = 0.5;
const RETRY_MAX = 5;
const QUIET_AFTER = 2.5;
const LOOK_AGAIN = [3, 10, 30]; // for tracks that came, went or changed, after the start; the last for ever

const ICONS = {
  play: "M8 5.5v13a1 1 0 0 0 1.53.85l10.2-6.5a1 1 0 0 0 0-1.7l-10.2-6.5A1 1 0 0 0 8 5.5z",
  pause: "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z",
  loud: "M4 9.5v5h3.5L12 19V5L7.5 9.5zM14 8.2v7.6c1.5-.7 2.5-2.1 2.5-3.8S15.500 8.900 14 8.200zM14 4v2c2.900.900 5 3.200 5 6s-2.100 5.100-5 6v2c4-.900 7-4.100 7-8s-3-7.100-7-8z",
  mute: "M4 9.5v5h3.5L12 19V5L7.5 9.5zM21 9.900 19.600 8.500 17.500 10.600 15.400 8.500 14 9.900l2.100 2.100L14 14.100l1.400 1.400 2.100-2.100 2.100 2.100 1.400-1.400-2.100-2.100z",
  full: "M5 5h6v2H7v4H5zM13 5h6v6h-2V7h-4zM5 13h2v4h4v2H5zM17 13h2v6h-6v-2h4z",
  small: "M9 5h2v6H5V9h4zM13 5h2v4h4v2h-6zM5 13h6v6H9v-4H5zM13 13h6v2h-4v4h-2z",
};

/* Texts of the server's states; all of them mean: ask again later. */
const STATES = {
  "Stream is offline": ["Stream is offline", "It starts here by itself as soon as it is live."],
  "Stream is initializing": ["Stream is starting", ""],
  "Stream is booting": ["Stream is starting", ""],
  "Stream is waiting for data": ["Waiting for the stream", ""],
  "Stream is shutting down": ["Stream is shutting down", ""],
};

function element(tag, className, attributes) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const name in attributes || {}) made.setAttribute(name, attributes[name]);
  return made;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

function button(className, iconName, label) {
  const made = element("button", className, { type: "button", "aria-label": label, title: label });
  if (iconName) made.append(icon(iconName));
  return made;
}

function relabel(made, iconName, label) {
  if (made.title === label) return;
  made.replaceChildren(icon(iconName));
  made.title = label;
  made.setAttribute("aria-label", label);
}

function withQuery(url, query) {
  query = query.replace(/^[?&]/, "");
  return query ? url + (url.includes("?") ? "&" : "?") + query : url;
}

function installStyle() {
  if (document.getElementById("mist-style") || !window.mistStyle) return;
  const style = element("style", "", { id: "mist-style" });
  style.textContent = window.mistStyle;
  document.head.append(style);
}

/* Plays a live fragmented MP4 from one endless HTTP reply through Media Source Extensions. */
class LiveMp4 {
  constructor(video, url, mime, events) {
    this.video = video;
    this.url = url;
    this.mime = mime;
    this.events = events;
    this.queue = [];
    this.queued = 0;
    this.target = TARGET_DELAY;
    this.started = false;
    this.closed = false;
    this.abort = new AbortController();
    this.lastByte = performance.now();
    this.Source = window.ManagedMediaSource || window.MediaSource;
    if (window.ManagedMediaSource) video.disableRemotePlayback = true;
    this.source = new this.Source();
    this.objectUrl = URL.createObjectURL(this.source);
    this.source.addEventListener("sourceopen", () => this.open(), { once: true });
    this.onWaiting = () => this.stalled();
    video.addEventListener("waiting", this.onWaiting);
    video.src = this.objectUrl;
    this.timer = setInterval(() => this.tick(), 200);
  }

  open() {
    URL.revokeObjectURL(this.objectUrl);
    if (this.closed) return;
    try {
      this.buffer = this.source.addSourceBuffer(this.mime);
    } catch (error) {
      this.fail("unsupported");
      return;
    }
    this.buffer.mode = "segments";
    this.buffer.addEventListener("updateend", () => this.pump());
    this.buffer.addEventListener("error", () => this.fail("changed"));
    this.read();
  }

  async read() {
    try {
      const reply = await fetch(this.url, { signal: this.abort.signal, cache: "no-store" });
      if (!reply.ok || !reply.body) throw new Error("HTTP " + reply.status);
      const reader = reply.body.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done || this.closed) break;
        this.lastByte = performance.now();
        this.queue.push(value);
        this.queued += value.byteLength;
        if (this.queued > MAX_QUEUE_BYTES) throw new Error("too far behind");
        this.pump();
      }
      this.fail("ended");
    } catch (error) {
      this.fail("broken");
    }
  }

  pump() {
    if (this.closed || !this.buffer || this.buffer.updating || this.source.readyState !== "open") return;
    this.follow();
    if (this.evict() || !this.queue.length) return;
    let data = this.queue[0];
    if (this.queue.length > 1) {
      data = new Uint8Array(this.queued);
      let at = 0;
      for (const piece of this.queue) { data.set(piece, at); at += piece.byteLength; }
    }
    try {
      this.buffer.appendBuffer(data);
      this.queue = [];
      this.queued = 0;
    } catch (error) {
      if (error.name !== "QuotaExceededError" || !this.evict(2)) this.fail("changed");
    }
  }

  /* Drop what was played long ago; true while the buffer is busy with it. */
  evict(keep) {
    const ranges = this.buffer.buffered;
    if (!ranges.length) return false;
    const limit = this.video.currentTime - (keep || KEEP_BEHIND);
    if (ranges.start(0) >= limit - (keep ? 0 : KEEP_BEHIND / 2)) return false;
    this.buffer.remove(0, limit);
    return true;
  }

  end() {
    const ranges = this.buffer ? this.buffer.buffered : null;
    return ranges && ranges.length ? ranges.end(ranges.length - 1) : null;
  }

  delay() {
    const end = this.end();
    return end === null ? null : Math.max(0, end - this.video.currentTime);
  }

  /* Begin at the live edge, and step over holes. */
  follow() {
    const ranges = this.buffer.buffered, video = this.video;
    if (!ranges.length) return;
    const start = ranges.start(ranges.length - 1), end = ranges.end(ranges.length - 1);
    if (!this.started) {
      this.started = true;
      video.currentTime = Math.max(start, end - this.target);
      this.events.started();
    } else if (video.currentTime < start && !video.seeking) {
      video.currentTime = Math.max(start, end - this.target);
    }
  }

  stalled() {
    if (this.started && !this.video.seeking && !this.video.paused) this.target = Math.min(MAX_TARGET_DELAY, this.target + 0.2);
  }

  tick() {
    const video = this.video, delay = this.delay();
    if (!video.paused && performance.now() - this.lastByte > STALL_TIMEOUT * 1000) { this.fail("stalled"); return; }
    if (delay === null) return;
    if (video.paused) {
      if (delay > MAX_AHEAD) this.fail("paused");
      return;
    }
    if (!this.events.catchUp()) { video.playbackRate = 1; return; }
    const over = delay - this.target;
    if (over > SEEK_DELAY) this.toLive();
    else if (over > 0.15) video.playbackRate = over > 1 ? 1.15 : 1.06;
    else if (over < 0.03) video.playbackRate = delay < this.target / 3 ? 0.97 : 1;
    this.target = Math.max(TARGET_DELAY, this.target - 0.0008);
  }

  toLive() {
    const end = this.end();
    if (end !== null) this.video.currentTime = Math.max(0, end - this.target);
  }

  fail(reason) {
    if (this.closed) return;
    this.close();
    this.events.failed(reason);
  }

  close() {
    if (this.closed) return;
    this.closed = true;
    clearInterval(this.timer);
    this.abort.abort();
    this.video.removeEventListener("waiting", this.onWaiting);
    this.video.playbackRate = 1;
    this.queue = [];
  }
}

class MistVideo {
  constructor(name, options) {
    this.stream = name;
    this.options = Object.assign({
      autoplay: true, controls: true, keyControls: true, muted: false, loop: false, poster: false, host: null, urlappend: "",
      fillSpace: false, liveCatchup: true, reloadDelay: false, setTracks: false, forceType: false, streaminfo: false,
    }, window.mistoptions || {}, options || {});
    if (!this.options.target) throw new Error("mistPlay: options.target is missing");
    this.host = String(this.options.host || location.origin).replace(/\/$/, "");
    this.info = null;
    this.source = null;
    this.playerName = "";
    this.state = "";
    this.logs = [];
    this.retry = RETRY_FIRST;
    this.unloaded = false;
    this.rejected = new Set();
    this.muteForced = false;
    installStyle();
    this.build();
    if (this.options.MistVideoObject) this.options.MistVideoObject.reference = this;
    if (typeof this.options.callback === "function") setTimeout(() => this.options.callback(this));
    this.showState("Loading…", "", true);
    this.load(this.options.streaminfo || null);
  }

  log(message, data) {
    this.logs.push({ time: new Date(), message: message, data: data || {} });
    if (this.logs.length > 500) this.logs.shift();
    this.options.target.dispatchEvent(new CustomEvent("log", { detail: message }));
  }

  /* The page. */

  build() {
    const box = this.container = element("div", "mist-player" + (this.options.fillSpace ? " mist-fill" : ""), { role: "region", "aria-label": "Player of " + this.stream, tabindex: "-1" });
    if (this.options.width) box.style.width = this.options.width + "px";
    if (this.options.height) box.style.height = this.options.height + "px";
    const video = this.video = element("video", "", { playsinline: "" });
    video.muted = Boolean(this.options.muted);
    video.preload = "auto";
    if (this.options.poster) video.poster = this.options.poster;
    this.top = element("div", "mist-top", { "aria-hidden": "true" });
    this.top.textContent = this.stream;
    this.bar = element("div", "mist-bar", { role: "group", "aria-label": "Controls" });
    this.playButton = button("mist-button", "play", "Play");
    this.muteButton = button("mist-button", "loud", "Mute");
    this.volume = element("input", "mist-volume", { type: "range", min: "0", max: "1", step: "0.05", value: "1", "aria-label": "Volume" });
    this.liveButton = button("mist-live", "", "Go to the live edge");
    this.liveButton.append("LIVE");
    this.stats = element("div", "mist-stats", { "aria-live": "off" });
    this.fullButton = button("mist-button", "full", "Full screen");
    const sound = element("div", "mist-sound");
    sound.append(this.muteButton, this.volume);
    this.bar.append(this.playButton, sound, this.liveButton, this.stats, this.fullButton);
    this.stateBox = element("div", "mist-state", { role: "status", "aria-live": "polite" });
    this.unmuteButton = button("mist-unmute", "mute", "Unmute");
    this.unmuteButton.append("Tap to unmute");
    this.unmuteButton.hidden = true;
    this.bigPlay = button("mist-play", "play", "Play");
    this.bigPlay.hidden = true;
    const own = this.options.controls === true;
    if (this.options.controls === "stock") video.controls = true;
    this.bar.hidden = this.top.hidden = !own;
    box.append(video, this.top, this.bar, this.stateBox, this.unmuteButton, this.bigPlay);
    this.options.target.replaceChildren(box);
    this.listen();
  }

  listen() {
    const video = this.video, box = this.container, refresh = () => this.refresh();
    this.playButton.onclick = this.bigPlay.onclick = () => this.toggle();
    this.muteButton.onclick = this.unmuteButton.onclick = () => this.setMuted(!video.muted);
    this.volume.oninput = () => { video.volume = Number(this.volume.value); video.muted = video.volume === 0; };
    this.liveButton.onclick = () => { if (this.engine && this.engine.toLive) this.engine.toLive(); video.play().catch(() => {}); };
    this.fullButton.onclick = () => this.fullscreen();
    video.onclick = (event) => { if (this.options.controls === true && event.pointerType !== "touch") this.toggle(); };
    video.ondblclick = () => this.fullscreen();
    for (const name of ["play", "pause", "volumechange", "playing", "waiting", "resize", "loadedmetadata"]) video.addEventListener(name, refresh);
    video.addEventListener("playing", () => this.played());
    video.addEventListener("waiting", () => { if (this.state === "") this.waitTimer = this.waitTimer || setTimeout(() => this.waited(), 700); });
    video.addEventListener("timeupdate", () => this.moved());
    video.addEventListener("ended", () => this.lost("ended"));
    video.addEventListener("error", () => this.lost("error"));
    document.addEventListener("fullscreenchange", refresh);
    this.onKey = (event) => this.key(event);
    if (this.options.keyControls) (this.options.keyControls === "focus" ? box : document).addEventListener("keydown", this.onKey);
    const awake = () => {
      box.classList.remove("mist-quiet");
      clearTimeout(this.quietTimer);
      this.quietTimer = setTimeout(() => box.classList.toggle("mist-quiet", !video.paused && this.state === ""), QUIET_AFTER * 1000);
    };
    for (const name of ["pointermove", "pointerdown", "keydown", "focusin"]) box.addEventListener(name, awake);
    this.awake = awake;
    this.statsTimer = setInterval(refresh, 500);
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    const keys = {
      " ": () => this.toggle(), k: () => this.toggle(), m: () => this.setMuted(!this.video.muted), f: () => this.fullscreen(),
      l: () => this.liveButton.onclick(), ArrowUp: () => this.nudge(0.1), ArrowDown: () => this.nudge(-0.1),
    };
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || (event.key === " " && event.target.tagName === "BUTTON")) return;
    event.preventDefault();
    this.awake();
    action();
  }

  nudge(by) {
    this.video.volume = Math.min(1, Math.max(0, this.video.volume + by));
    this.setMuted(this.video.volume === 0);
  }

  setMuted(muted) {
    this.video.muted = muted;
    this.muteForced = false;
    if (!muted && this.video.volume === 0) this.video.volume = 0.5;
    if (this.video.paused && !this.wantsPause) this.play();
    this.refresh();
  }

  toggle() {
    this.wantsPause = !this.video.paused;
    if (this.wantsPause) this.video.pause();
    else if (this.engine) { if (this.engine.toLive) this.engine.toLive(); this.play(); }
    else this.load();
  }

  fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (this.container.requestFullscreen) this.container.requestFullscreen().catch(() => {});
    else if (this.video.webkitEnterFullscreen) this.video.webkitEnterFullscreen();
  }

  /* Start, with sound if the browser lets us, else without and with a button for it. */
  async play() {
    const video = this.video;
    try {
      await video.play();
    } catch (error) {
      if (error.name !== "NotAllowedError" || this.unloaded) return;
      if (!video.muted) {
        video.muted = true;
        this.muteForced = true;
        try { await video.play(); return; } catch (again) { if (again.name !== "NotAllowedError") return; }
      }
      this.bigPlay.hidden = false;
      this.clearState();
    }
  }

  showState(title, detail, busy) {
    const solid = !this.video.videoWidth;
    const same = this.state === title;
    this.state = title;
    this.stateBox.hidden = false;
    this.stateBox.classList.toggle("mist-solid", solid);
    this.container.classList.remove("mist-quiet");
    if (same) return;
    const text = element("p"), more = element("small");
    text.textContent = title;
    more.textContent = detail;
    this.stateBox.replaceChildren(...(busy ? [element("div", "mist-spinner")] : []), ...(title ? [text] : []), ...(detail ? [more] : []));
    this.log(title);
  }

  clearState() {
    this.state = "";
    this.stateBox.hidden = true;
    clearTimeout(this.waitTimer);
    this.waitTimer = null;
  }

  showError(text) { this.showState(text, "", false); }
  clearError() { this.clearState(); }

  played() {
    this.clearState();
    this.bigPlay.hidden = true;
    this.retry = RETRY_FIRST;
    this.lostCount = 0;
    this.awake();
  }

  moved() {
    if (this.waitTimer && this.video.readyState > 2) { clearTimeout(this.waitTimer); this.waitTimer = null; }
    if (this.state && this.engine && this.video.readyState > 2 && !this.video.paused) this.clearState();
  }

  waited() {
    this.waitTimer = null;
    if (this.video.readyState < 3 && !this.video.paused) this.showState("Waiting for the stream", "", true);
  }

  /* Follow the video in the buttons and the line of figures. */
  refresh() {
    const video = this.video, live = !this.info || this.info.type !== "vod";
    relabel(this.playButton, video.paused ? "play" : "pause", video.paused ? "Play" : "Pause");
    const silent = video.muted || video.volume === 0;
    relabel(this.muteButton, silent ? "mute" : "loud", silent ? "Unmute" : "Mute");
    this.volume.value = video.muted ? 0 : video.volume;
    this.unmuteButton.hidden = !(this.muteForced && video.muted && !video.paused && this.hasAudio);
    const full = Boolean(document.fullscreenElement);
    relabel(this.fullButton, full ? "small" : "full", full ? "Leave full screen" : "Full screen");
    const delay = this.delay();
    this.liveButton.hidden = !live || !this.engine;
    this.liveButton.classList.toggle("mist-on", delay !== null && delay < 4 && !video.paused);
    const parts = [];
    if (delay !== null && live && !video.paused) parts.push(delay.toFixed(1) + " s delay");
    if (video.videoWidth) parts.push(video.videoWidth + "×" + video.videoHeight);
    if (this.codecs) parts.push(this.codecs);
    if (this.stats.textContent !== parts.join(" · ")) this.stats.textContent = parts.join(" · ");
  }

  delay() {
    if (!this.engine) return null;
    if (this.engine.delay) return this.engine.delay();
    const ranges = this.video.seekable;
    return ranges.length ? Math.max(0, ranges.end(ranges.length - 1) - this.video.currentTime) : null;
  }

  /* Choosing and starting. */

  async load(known) {
    if (this.unloaded) return;
    clearTimeout(this.retryTimer);
    this.stop();
    const info = known || await this.ask();
    if (this.unloaded || this.engine) return;
    if (info.error) { this.unavailable(info); return; }
    this.info = info;
    this.options.target.dispatchEvent(new CustomEvent("haveStreamInfo", { detail: info }));
    const choice = this.choose(info);
    if (!choice) {
      this.showState("This browser cannot play the stream", this.codecList(info), false);
      this.options.target.dispatchEvent(new CustomEvent("initializeFailed"));
      this.again();
      return;
    }
    this.start(choice);
  }

  async ask() {
    try {
      const url = withQuery(this.host + "/json_" + encodeURIComponent(this.stream) + ".js?metaeverywhere=1&inclzero=1", this.options.urlappend || "");
      return await (await fetch(url, { cache: "no-store" })).json();
    } catch (error) {
      return { error: "The server does not answer", unreachable: true };
    }
  }

  /* Start anew when the stream now offers something else, such as an audio track that came late. */
  async lookAgain(engine, turn) {
    const info = await this.ask();
    if (this.unloaded || this.engine !== engine) return;
    if (!info.error) {
      this.info = info;
      const choice = this.choose(info);
      if (choice && choice.key !== this.choiceKey) { this.log("The tracks have changed"); this.load(info); return; }
    }
    this.plan(engine, turn + 1);
  }

  plan(engine, turn) {
    const seconds = LOOK_AGAIN[Math.min(turn, LOOK_AGAIN.length - 1)];
    clearTimeout(this.lookTimer);
    this.lookTimer = setTimeout(() => this.lookAgain(engine, turn), seconds * 1000);
  }

  unavailable(info) {
    const [title, detail] = STATES[info.error] || [info.error, ""];
    const percent = info.perc ? " " + info.perc.toFixed(1) + " %" : "";
    this.showState(info.on_error || title + percent, info.on_error ? "" : info.unreachable ? "Trying again…" : detail, info.error !== "Stream is offline");
    this.again();
  }

  again() {
    this.retry = Math.min(RETRY_MAX, this.retry * 1.6);
    const seconds = Number(this.options.reloadDelay) || this.retry;
    this.retryTimer = setTimeout(() => this.load(), (seconds > 3600 ? seconds : seconds * 1000));
  }

  tracks(info, type) {
    const all = Object.values((info.meta && info.meta.tracks) || {}).filter((track) => track.type === type);
    return all.sort((a, b) => b.idx - a.idx);
  }

  codecList(info) {
    return Object.values((info.meta && info.meta.tracks) || {}).map((track) => track.codec).join(", ");
  }

  /* The first source that plays here: low-delay MP4 before everything else when the stream is live. */
  choose(info) {
    const sources = (info.source || []).filter((source) => !this.options.forceType || source.type === this.options.forceType);
    const ways = [(source) => this.asLiveMp4(source, info), (source) => this.asNative(source, info)];
    for (const way of info.type === "live" ? ways : ways.slice(1)) {
      for (const source of sources) {
        if (!this.rejected.has(way === ways[0] ? "mse" : source.url)) {
          const choice = way(source);
          if (choice) return choice;
        }
      }
    }
    this.rejected.clear();
    return null;
  }

  asLiveMp4(source, info) {
    const Source = window.ManagedMediaSource || window.MediaSource;
    if (!Source || source.type !== "html5/video/mp4" || !window.AbortController) return null;
    const asked = this.options.setTracks || {}, picked = {}, codecs = [], names = [];
    for (const type of ["video", "audio"]) {
      if (asked[type] === "none") continue;
      const wanted = this.tracks(info, type).filter((track) => asked[type] === undefined || String(track.idx) === String(asked[type]));
      const fit = wanted.find((track) => track.codecstring && Source.isTypeSupported(type + '/mp4; codecs="' + track.codecstring + '"'));
      if (!fit) continue;
      picked[type] = fit;
      codecs.push(fit.codecstring);
      names.push(fit.codec);
    }
    if (!codecs.length || (!picked.video && this.tracks(info, "video").length && this.tracks(info, "audio").length && asked.video !== "none")) return null;
    const query = ["video", "audio"].map((type) => type + "=" + (picked[type] ? picked[type].idx : "none")).join("&") +
      "&mintrackkeys=1&waittrackcount=" + codecs.length;
    const mime = (picked.video ? "video" : "audio") + '/mp4; codecs="' + codecs.join(",") + '"';
    return { source: source, way: "mse", key: mime + query, url: withQuery(this.url(source), query), mime: mime, codecs: names, audio: Boolean(picked.audio) };
  }

  asNative(source, info) {
    if (!/^html5\//.test(source.type)) return null;
    const type = source.type.slice(6), isHls = /mpegurl/.test(type);
    const audioOnly = !this.tracks(info, "video").length;
    const list = [].concat(this.tracks(info, "video").slice(0, 1), this.tracks(info, "audio").slice(0, 1));
    if (!list.length || /^(text|image)\//.test(type)) return null;
    const codecs = list.map((track) => track.codecstring || "").filter(Boolean).join(",");
    const mime = isHls || !codecs ? type : (audioOnly ? type.replace("video/", "audio/") : type) + '; codecs="' + codecs + '"';
    if (!this.video.canPlayType(mime)) return null;
    if (isHls && !/iP(hone|ad|od)|Macintosh/.test(navigator.userAgent)) return null;
    return { source: source, way: "native", key: source.type, url: this.url(source), codecs: list.map((track) => track.codec), audio: this.tracks(info, "audio").length > 0 };
  }

  url(source) {
    let url = source.url || this.host + "/" + String(source.relurl || "").replace(/^\//, "");
    if (location.protocol === "https:") url = url.replace(/^http:/, "https:");
    return withQuery(url, this.options.urlappend || "");
  }

  start(choice) {
    this.source = Object.assign({}, choice.source, { url: choice.url });
    this.playerName = choice.way === "mse" ? "mp4" : "html5";
    this.codecs = choice.codecs.map((codec) => ({ H264: "H.264", opus: "Opus" })[codec] || codec).join(" + ");
    this.hasAudio = choice.audio;
    this.choiceKey = choice.key;
    this.rejectKey = choice.way === "mse" ? "mse" : choice.source.url;
    this.log("Playing " + choice.url + " as " + this.playerName);
    this.options.target.dispatchEvent(new CustomEvent("comboChosen"));
    if (choice.way === "mse") {
      this.engine = new LiveMp4(this.video, choice.url, choice.mime, {
        started: () => { if (this.options.autoplay || this.everPlayed) { if (!this.wantsPause) this.play(); } else { this.bigPlay.hidden = false; this.clearState(); } this.everPlayed = true; },
        failed: (reason) => this.lost(reason),
        catchUp: () => this.options.liveCatchup,
      });
    } else {
      this.engine = { close() {} };
      this.video.controls = this.info.type === "vod" || this.options.controls === "stock";
      this.bar.hidden = this.top.hidden = this.video.controls || this.options.controls !== true;
      this.video.loop = Boolean(this.options.loop) && this.info.type === "vod";
      this.video.src = choice.url;
      if (this.options.startTime) this.video.currentTime = this.options.startTime;
      if (this.options.autoplay) this.play(); else { this.bigPlay.hidden = false; this.clearState(); }
    }
    this.options.target.dispatchEvent(new CustomEvent("initialized"));
    if (choice.way === "mse") this.plan(this.engine, 0);
    this.refresh();
  }

  /* What played has ended or broken: say so, and look again what there is. */
  lost(reason) {
    if (!this.engine || this.unloaded) return;
    this.log("Playback ended: " + reason);
    if (reason === "paused") { this.stop(); return; }
    if (reason === "ended" && this.info && this.info.type === "vod") { this.bigPlay.hidden = false; return; }
    this.lostCount = (this.lostCount || 0) + 1;
    if (reason === "unsupported" || this.lostCount > 4) this.rejected.add(this.rejectKey);
    this.stop();
    this.showState("Waiting for the stream", "", true);
    this.again();
  }

  /* The last picture stays until there is another. */
  stop() {
    const engine = this.engine;
    this.engine = null;
    clearTimeout(this.lookTimer);
    if (engine) engine.close();
  }

  reload() { this.retry = RETRY_FIRST; this.load(); }

  unload() {
    if (this.unloaded) return;
    this.unloaded = true;
    this.stop();
    this.video.removeAttribute("src");
    this.video.load();
    clearInterval(this.statsTimer);
    clearTimeout(this.retryTimer);
    clearTimeout(this.lookTimer);
    clearTimeout(this.quietTimer);
    clearTimeout(this.waitTimer);
    document.removeEventListener("keydown", this.onKey);
    this.container.remove();
  }
}

window.MistInstances = window.MistInstances || 0;
window.MistVideo = MistVideo;
window.mistPlay = function (name, options) {
  window.MistInstances++;
  return new MistVideo(name, options);
};
})();
