for (const card of document.querySelectorAll('.card')) {
  const compare = card.querySelector('.compare');
  const range = compare.querySelector('input');
  const place = () => compare.style.setProperty('--x', range.value + '%');
  const choose = () => {
    const { value } = card.querySelector('input:checked');
    for (const image of compare.querySelectorAll('.before'))
      image.hidden = !image.classList.contains(value);
  };
  range.addEventListener('input', place);
  card.querySelector('fieldset').addEventListener('change', choose);
  place();
  choose();  // a page that is loaded again may keep what was chosen
}
