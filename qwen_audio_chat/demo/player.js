// The players of the page. One sound plays at a time. All listeners are the document's and the cards hold only data
// (data-src, data-seconds, data-start, data-end), because the Chatbot may redraw its messages at any moment.
(() => {
	const audio = new Audio();
	audio.preload = "none";
	let context = null; // Web Audio plays pieces: it starts and stops exactly at a sample
	let piece = null; // {source, src, start, end, began}
	let wanted = 0; // number of the latest request; an earlier one that is still being decoded is dropped
	const buffers = new Map(); // the last few decoded audios, by address

	const clock = (seconds, total) => {
		if (total < 9.95) return seconds.toFixed(1);
		const whole = Math.floor(seconds);
		const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
		const pad = (n) => String(n).padStart(2, "0");
		return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
	};
	const cards = (src) => [...document.querySelectorAll(".qa-clip")].filter((card) => card.dataset.src === src);
	const address = (src) => new URL(src, document.baseURI).href;

	function show(src, position, playing) {
		for (const card of cards(src)) {
			const seconds = Number(card.dataset.seconds) || 1;
			card.classList.toggle("qa-playing", playing);
			card.querySelector(".qa-head").style.left = `${Math.min(100, (100 * position) / seconds)}%`;
			card.querySelector(".qa-now").textContent = clock(position, seconds);
			const seek = card.querySelector(".qa-seek");
			seek.setAttribute("aria-valuenow", position.toFixed(1));
			seek.setAttribute("aria-valuetext", clock(position, seconds));
		}
	}

	function tick() {
		if (piece) {
			show(piece.src, Math.min(piece.end, piece.start + context.currentTime - piece.began), true);
		} else if (audio.dataset.src) {
			show(audio.dataset.src, audio.currentTime, !audio.paused);
		}
		if (piece || !audio.paused) requestAnimationFrame(tick);
	}

	function load(src) {
		if (audio.dataset.src === src) return;
		if (audio.dataset.src) show(audio.dataset.src, 0, false);
		audio.dataset.src = src;
		audio.src = address(src);
	}

	function endPiece() {
		wanted += 1;
		document.querySelectorAll(".qa-piece.qa-playing").forEach((button) => button.classList.remove("qa-playing"));
		if (!piece) return;
		const { source, src } = piece;
		piece = null;
		source.onended = null;
		source.stop();
		cards(src).forEach((card) => (card.querySelector(".qa-span").style.width = "0"));
		show(src, 0, false);
	}

	async function decoded(src) {
		if (!buffers.has(src)) {
			const response = await fetch(address(src));
			if (!response.ok) throw new Error(`audio: ${response.status}`);
			buffers.set(src, await context.decodeAudioData(await response.arrayBuffer()));
			if (buffers.size > 4) buffers.delete(buffers.keys().next().value);
		}
		return buffers.get(src);
	}

	async function playPiece(button) {
		const wasPlaying = button.classList.contains("qa-playing");
		audio.pause();
		endPiece();
		if (wasPlaying) return;
		context ??= new AudioContext();
		const mine = wanted;
		const { src } = button.dataset;
		const [start, end] = [Number(button.dataset.start), Number(button.dataset.end)];
		button.classList.add("qa-playing");
		try {
			const source = context.createBufferSource();
			source.buffer = await decoded(src);
			source.connect(context.destination);
			await context.resume();
			if (mine !== wanted) return;
			source.onended = endPiece;
			source.start(0, start, end - start);
			piece = { source, src, start, end, began: context.currentTime };
		} catch (error) {
			if (mine === wanted) button.classList.remove("qa-playing");
			console.warn(error);
			return;
		}
		for (const card of cards(src)) {
			const seconds = Number(card.dataset.seconds) || 1;
			Object.assign(card.querySelector(".qa-span").style, {
				left: `${(100 * start) / seconds}%`,
				width: `${(100 * (end - start)) / seconds}%`,
			});
		}
		tick();
	}

	function toggle(card) {
		endPiece();
		if (audio.dataset.src === card.dataset.src && !audio.paused) {
			audio.pause();
			return;
		}
		load(card.dataset.src);
		audio.play().catch((error) => console.warn(error));
	}

	function seek(card, position) {
		endPiece();
		load(card.dataset.src);
		const seconds = Number(card.dataset.seconds);
		const target = Math.max(0, Math.min(seconds, position));
		if (audio.readyState) audio.currentTime = target;
		else audio.addEventListener("loadedmetadata", () => (audio.currentTime = target), { once: true });
		if (!audio.readyState) audio.load();
		show(card.dataset.src, target, !audio.paused);
	}

	for (const event of ["play", "pause", "ended", "seeked"]) audio.addEventListener(event, tick);

	// Deleted audios stop playing. The wait is for redraws of the Chatbot, during which a card is missing for a moment.
	let looking = 0;
	new MutationObserver(() => {
		clearTimeout(looking);
		looking = setTimeout(() => {
			const shown = new Set([...document.querySelectorAll(".qa-clip")].map((card) => card.dataset.src));
			for (const src of buffers.keys()) if (!shown.has(src)) buffers.delete(src);
			if (piece && !shown.has(piece.src)) endPiece();
			if (audio.dataset.src && !shown.has(audio.dataset.src)) {
				audio.pause();
				audio.removeAttribute("src");
				delete audio.dataset.src;
			}
		}, 300);
	}).observe(document, { childList: true, subtree: true });

	// `render.guard` marks text with an invisible character so that it isn't taken for HTML; copies leave it out.
	const unguard = (text) => text.replace(/([<&])\u200b/g, "$1");
	document.addEventListener("copy", (event) => {
		const text = getSelection().toString();
		if (unguard(text) === text) return;
		event.clipboardData.setData("text/plain", unguard(text));
		event.preventDefault();
	});
	if (navigator.clipboard) {
		const write = navigator.clipboard.writeText.bind(navigator.clipboard);
		navigator.clipboard.writeText = (text) => write(unguard(text));
	}

	document.addEventListener("click", (event) => {
		const target = event.target.closest?.(".qa-play, .qa-seek, .qa-piece");
		if (!target) return;
		if (target.matches(".qa-piece")) return playPiece(target);
		const card = target.closest(".qa-clip");
		if (target.matches(".qa-play")) return toggle(card);
		const box = target.getBoundingClientRect();
		seek(card, (Number(card.dataset.seconds) * (event.clientX - box.left)) / box.width);
	});

	document.addEventListener("keydown", (event) => {
		const slider = event.target.closest?.(".qa-seek");
		if (!slider) return;
		const card = slider.closest(".qa-clip");
		const [now, end] = [Number(slider.getAttribute("aria-valuenow")), Number(card.dataset.seconds)];
		const moves = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: end, PageUp: now + 10, PageDown: now - 10 };
		if (event.key in moves) seek(card, moves[event.key]);
		else if (event.key === " " || event.key === "Enter") toggle(card);
		else return;
		event.preventDefault();
	});
})();
