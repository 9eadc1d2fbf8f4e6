// sidebar.js - the list of conversations: search, open, rename, delete, export, import.

import { matches } from './conversation.js';
import { $, download, iconButton, make } from './dom.js';
import { isComposing } from './keys.js';
import { toast } from './toast.js';
import { exportName, exportText, importText } from './transfer.js';
import { count, when } from './words.js';

const TITLE_MOST = 200;

export class Sidebar {
  constructor({ store, chat }) {
    Object.assign(this, { store, chat, all: [], renaming: null, items: new Map() }); // items: id -> {key: what it shows, element}
    $('new-chat').addEventListener('click', () => {
      this.close();
      chat.begin();
      $('prompt').focus();
    });
    $('search').addEventListener('input', () => this.draw());
    $('export').addEventListener('click', () => this.export());
    $('import').addEventListener('click', () => $('import-file').click());
    $('import-file').addEventListener('change', () => this.importPicked());
    chat.onlist = () => this.refresh();
  }

  /** Reads the list anew. Calls while one is under way share the one after it. */
  refresh() {
    this.again = true;
    this.reading ??= this.read().finally(() => (this.reading = null));
    return this.reading;
  }

  async read() {
    while (this.again) {
      this.again = false;
      this.all = await this.store.all();
    }
    this.draw();
  }

  draw() {
    if (this.renaming) return;
    const found = this.all.filter((each) => matches(each, $('search').value));
    const focused = document.activeElement?.closest?.('#conversations li')?.dataset.id;
    const label = document.activeElement?.getAttribute('aria-label');
    const list = $('conversations');
    const elements = found.map((each) => this.itemOf(each));
    // What did not change stays where it is: a press that has begun on it ends there too.
    for (const element of [...list.children]) if (!elements.includes(element)) element.remove();
    elements.forEach((element, i) => list.children[i] !== element && list.insertBefore(element, list.children[i] ?? null));
    if (focused && !list.contains(document.activeElement)) this.focusItem(focused, label);
    $('no-conversations').hidden = found.length > 0;
    const stay = this.store.reason ? 'They end with this tab.' : 'They stay in this browser.';
    $('no-conversations').textContent = this.all.length > 0 ? 'Nothing found' : `Your chats will be here. ${stay}`;
    $('export').disabled = this.all.length === 0;
  }

  itemOf(conversation) {
    const { id, title, updated } = conversation;
    const key = JSON.stringify([title, id === this.chat.current.id, this.chat.isRunning(id), when(updated)]);
    const old = this.items.get(id);
    if (old?.key === key) return old.element;
    const element = this.item(conversation);
    this.items.set(id, { key, element });
    return element;
  }

  /** An item was made anew; the focus stays where it was. */
  focusItem(id, label) {
    const item = $('conversations').querySelector(`[data-id="${CSS.escape(id)}"]`);
    const button = label ? item?.querySelector(`[aria-label="${CSS.escape(label)}"]`) : null;
    (button ?? item?.querySelector('.open') ?? $('search')).focus();
  }

  item(conversation) {
    const { id, title, updated } = conversation;
    const current = id === this.chat.current.id;
    const open = make('button', { type: 'button', class: 'open', 'aria-current': current ? 'true' : undefined, onclick: () => this.open(conversation) },
      make('span', { class: 'title', dir: 'auto', text: title }),
      make('span', { class: 'date', text: this.chat.isRunning(id) ? 'writing' : when(updated) }));
    return make('li', { 'data-id': id, class: current ? 'current' : '' }, open, make('span', { class: 'item-actions' },
      iconButton('edit', `Rename ${title}`, () => this.rename(conversation)),
      iconButton('trash', `Delete ${title}`, () => this.delete(conversation))));
  }

  open(conversation) {
    this.close();
    this.chat.open(conversation);
  }

  /** Where the list is a drawer. */
  close() {
    if ($('sidebar').matches(':popover-open')) $('sidebar').hidePopover();
  }

  rename(conversation) {
    const item = $('conversations').querySelector(`[data-id="${CSS.escape(conversation.id)}"]`);
    const box = make('input', { type: 'text', 'aria-label': 'Title', maxlength: TITLE_MOST, dir: 'auto' });
    box.value = conversation.title;
    this.renaming = conversation.id;
    this.items.delete(conversation.id); // what it shows is replaced
    const end = async (keep) => {
      if (!this.renaming) return;
      this.renaming = null;
      if (keep && box.value.trim()) await this.retitle(conversation, box.value.trim());
      await this.refresh();
      this.focusItem(conversation.id);
    };
    box.addEventListener('keydown', (event) => {
      if (isComposing(event) || !['Enter', 'Escape'].includes(event.key)) return;
      event.preventDefault();
      event.stopPropagation();
      end(event.key === 'Enter');
    });
    box.addEventListener('blur', () => end(true));
    item.replaceChildren(box);
    box.select();
  }

  async retitle(conversation, title) {
    const target = this.chat.living(conversation.id) ?? (await this.store.get(conversation.id)); // the list may be old
    if (!target) return;
    Object.assign(target, { title, named: true });
    await this.store.put(target);
    this.chat.onchange();
  }

  async delete({ id, title }) {
    const conversation = this.chat.living(id) ?? (await this.store.get(id)); // the list may be old
    this.chat.drop(id);
    await this.store.delete(id);
    await this.refresh();
    $('search').focus();
    toast(`\u201c${title}\u201d is deleted.`, {
      label: 'Undo',
      run: async () => {
        if (conversation) await this.store.put(conversation);
        await this.refresh();
      },
    });
  }

  async export() {
    download(exportName(), exportText(await this.store.all()));
  }

  async importPicked() {
    const [file] = $('import-file').files;
    $('import-file').value = '';
    if (file) await this.import(file);
  }

  async import(file) {
    try {
      const text = await file.text();
      const { added, same } = importText(text, await this.store.all()); // the list may be old
      await Promise.all(added.map((conversation) => this.store.put(conversation)));
      await this.refresh();
      toast(`${count(added.length, 'conversation')} imported${same ? `, ${same} were here already` : ''}.`);
    } catch (error) {
      toast(error.message);
    }
  }
}
