// main.js - the demo page: its parts, and what each tells the others.

import { ChatView } from './chat-view.js';
import { Chat } from './chat.js';
import { Composer } from './composer.js';
import { SUGGESTIONS } from './config.js';
import { ConversationStore } from './conversation-store.js';
import { $, closeOutside, iconButton } from './dom.js';
import { acceptDrops } from './drop.js';
import { InsidePanel } from './inside-panel.js';
import { forTab } from './kept.js';
import { LoaderView } from './loader-view.js';
import { Loader } from './loader.js';
import { ModelsDialog } from './models-dialog.js';
import { isolation, onUpdate } from './offline.js';
import { Settings } from './settings.js';
import { Sidebar } from './sidebar.js';
import { Status } from './status.js';
import { toast } from './toast.js';

const loader = new Loader();
const loaderView = new LoaderView(loader);
const settings = new Settings();
const status = new Status();
const inside = new InsidePanel({
  getModel: () => loader.model,
  getSource: () => loader.source.file ?? loader.source.url,
  getPrompt: () => chat.current.messages.findLast(({ role }) => role === 'user')?.text ?? SUGGESTIONS[0],
});
const store = await ConversationStore.open();
const chat = new Chat({ store, loader, settings, status, hooks: inside });
const composer = new Composer(chat);
const sidebar = new Sidebar({ store, chat });
const models = new ModelsDialog(loader);

/** What was pressed is gone afterwards: the focus goes where one writes. */
function andFocus(done) {
  if (done !== false) composer.focus();
  return done;
}

chat.view = new ChatView($('messages'), {
  edit: (message, text) => andFocus(chat.edit(message, text)),
  regenerate: (message) => andFocus(chat.regenerate(message)),
  resume: (message) => andFocus(chat.resume(message)),
  choose: (message, step) => {
    chat.choose(message);
    chat.view.focusStep(message, step);
  },
  probabilities: (message, view) =>
    view.showTokens(view.tokens ? null : chat.tokensOf(message), (element, tokens) => inside.renderProbabilities(element, tokens)),
});

function drawComposer() {
  const empty = chat.current.messages.length === 0;
  const usable = loader.model !== null || loader.state === 'loading';
  document.body.classList.toggle('empty', empty);
  $('hero').hidden = !empty;
  $('mode').hidden = !settings.json;
  composer.update({ usable, busy: chat.busy, empty });
  $('arrival-again').disabled = chat.running; // it begins anew, which would end the answer
}

loader.onchange = () => {
  const writing = $('composer').contains(document.activeElement);
  drawComposer();
  loaderView.draw();
  if (writing && $('composer').hidden && !$('card').hidden) $('load').focus();
};
loader.onmodel = (model, first) => {
  if (!model) chat.stopAll();
  status.setModel(model);
  inside.modelChanged(model);
  const idle = document.activeElement === document.body && !document.querySelector('dialog[open], :popover-open:not(#toasts)');
  if (first && idle) composer.focus(); // not away from where the visitor is
};
chat.onchange = () => {
  document.title = chat.current.messages.length > 0 ? `${chat.current.title} \u2013 bitpair` : 'bitpair';
  status.setConversation(chat.current);
  loader.onchange();
  sidebar.draw();
};
settings.onchange = drawComposer;
store.onfailure = (error) => toast(
  error.name === 'QuotaExceededError' ? 'There is no room left to keep your chats: they end with this tab. Delete some, or a model under Models.'
    : `Your chats could not be kept, they end with this tab: ${error.message}`);
if (store.reason) toast(`This browser does not keep your chats: they end with this tab. (${store.reason})`);

acceptDrops((file) => {
  if (/\.json$/i.test(file.name) || file.type === 'application/json') sidebar.import(file);
  else models.askFile(file);
});

for (const name of ['banner', 'kept']) {
  $(name).append(iconButton('close', 'Dismiss', () => {
    loaderView.keptDismissed = $('kept-text').textContent;
    $(name).hidden = true;
  }));
}
if (!isSecureContext) {
  $('banner-text').textContent =
    'This page was not opened by https, so the model runs on one thread and is not kept for the next visit. Open it by https, or from this machine as localhost.';
}
isolation.then((isolated) => ($('banner').hidden = isolated));
onUpdate(() => toast('A newer version of this page is here. A reload shows it.', { label: 'Reload', run: () => location.reload() }));
document.querySelectorAll('dialog').forEach(closeOutside);
addEventListener('pagehide', () => chat.leave());
document.addEventListener('visibilitychange', () => document.hidden && chat.flush());

await sidebar.refresh();
const last = sidebar.all.find(({ id }) => id === forTab.get('conversation'));
await (last ? chat.open(last) : chat.begin());
document.body.dataset.started = 'true';
if (await loader.look()) loader.start();
