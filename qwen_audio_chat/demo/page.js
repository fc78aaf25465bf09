// What the page does in the browser beside its players. Gradio's `js=` arguments in page.py call these functions by name.
window.qaPage = (() => {
	let numWaiting = 0; // files in the box when it last changed

	// A secret of this tab, which survives a reload but not the closing of the tab.
	function tabKey() {
		let key = sessionStorage.getItem("qa-tab");
		if (!key) {
			const bytes = crypto.getRandomValues(new Uint8Array(24));
			key = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
			sessionStorage.setItem("qa-tab", key);
		}
		return key;
	}

	// A text that was typed and not yet sent survives a reload; Gradio reloads the page when the server comes back.
	function draft() {
		return { text: sessionStorage.getItem("qa-draft") ?? "", files: [] };
	}

	function focusBox() {
		document.querySelector("#qa-box textarea")?.focus();
	}

	// Gradio shows every waiting audio as the same note; the style sheet writes the name that is set here below it. It
	// also takes the focus away from the box when a file is chosen; with a keyboard at hand, typing should go on there.
	function boxChanged(message) {
		requestAnimationFrame(() => {
			sessionStorage.setItem("qa-draft", message?.text ?? "");
			const items = document.querySelectorAll("#qa-box .thumbnail-item");
			items.forEach((item, index) => {
				item.title = item.dataset.name = message?.files?.[index]?.orig_name ?? "";
			});
			if (items.length > numWaiting && matchMedia("(pointer: fine)").matches) focusBox();
			numWaiting = items.length;
		});
	}

	// Adds to a message whether the page shows a conversation, which the server may no longer know.
	function withConversationShown(message) {
		return [message, document.querySelector("#qa-chat .user") !== null];
	}

	// The link gets its file a moment after the event.
	function download() {
		setTimeout(() => document.querySelector("#qa-download")?.click(), 300);
	}

	return { tabKey, draft, focusBox, boxChanged, withConversationShown, download };
})();
