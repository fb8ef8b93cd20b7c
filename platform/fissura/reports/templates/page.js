// Sorts by the clicked column: by `data-value` where a cell has one, as numbers where both are; empty last.
for (const button of document.querySelectorAll('table.sortable th button')) button.onclick = () => {
  const head = button.parentElement, table = head.closest('table'), body = table.tBodies[0];
  const column = [...head.parentElement.children].indexOf(head);
  const ascending = head.getAttribute('aria-sort') !== 'ascending';
  const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    if (a === '' || b === '') return (a === '') - (b === '');
    const gap = Number(a) - Number(b);
    return (Number.isNaN(gap) ? a.localeCompare(b) : gap) * (ascending ? 1 : -1);
  };
  [...body.rows].sort((a, b) => compare(key(a), key(b))).forEach(row => body.append(row));
  table.querySelectorAll('th').forEach(other => other.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', ascending ? 'ascending' : 'descending');
};

// Folds away the last columns of a table that is wider than its place, never the first three; a button below
// names them and unfolds them, and the table then scrolls. Without scripts it scrolls from the first.
const fold = holder => {
  const [place, more] = holder.children, table = place.firstElementChild;
  const heads = [...table.tHead.rows[0].cells], open = more.ariaExpanded === 'true';
  delete table.dataset.first;
  const start = heads[0].getBoundingClientRect().left, room = place.clientWidth + 1;
  const fits = heads.filter(head => head.getBoundingClientRect().right - start <= room).length;
  const shown = Math.max(fits, 3), hidden = heads.slice(shown).map(head => head.textContent);
  if (!open && hidden.length) table.dataset.first = shown;
  more.hidden = !hidden.length;
  more.textContent = open ? 'Show fewer columns' : `Show ${hidden.length} more: ${hidden.join(', ')}`;
};
const rules = Array.from({length: 97}, (_, i) =>
  `table[data-first="${i + 3}"] tr > :nth-child(n + ${i + 4}) { display: none; }`);
document.head.append(Object.assign(document.createElement('style'), {textContent: rules.join('')}));
const watch = new ResizeObserver(entries => entries.forEach(entry => fold(entry.target.parentElement)));
for (const holder of document.querySelectorAll('div.fold')) {
  const [place, more] = holder.children;
  more.onclick = () => { more.ariaExpanded = String(more.ariaExpanded !== 'true'); fold(holder); };
  watch.observe(place);
}
